"""What tests of stores share."""

from celebvision.storage import Store


def keys(store: Store, prefix: str = "") -> list[str]:
    return [stat.key for stat in store.list(prefix)]
