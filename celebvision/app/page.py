"""The page as Streamlit runs it: from the top at each click, for each visitor."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from hashlib import sha256
from typing import TYPE_CHECKING, Any, TypeVar

import streamlit as st

from celebvision import images
from celebvision.app.opening import Opening, opening
from celebvision.config import MIB, AppSettings

if TYPE_CHECKING:
    from celebvision.app.house import House

LABEL, REDRAW, PAINT = "Say what is in them", "Redraw them in a style", "Paint one, and watch"
SIZES = (128, 256, 512, 1024)  # pixels of the shorter side
POLL_S = 0.5
# Of what was made for a visitor, so that a click on something else does not make it again.
KEPT, KEPT_BYTES = 64, 64 * MIB

T = TypeVar("T")


def main() -> None:
    """The whole page."""
    st.set_page_config("CelebVision", "🎨", "centered")
    st.title("CelebVision")
    st.caption("Upload faces: a network says what it sees in them, or draws them anew. Nothing is stored.")
    opened = opening()
    pictures = _pictures(opened.settings)
    does = st.radio("What shall be done?", (LABEL, REDRAW, PAINT), horizontal=True)
    if opened.house is None:
        _wait(opened)
        return
    for trouble in opened.house.models.offered()[1]:
        st.warning(trouble)
    {LABEL: _label, REDRAW: _redraw, PAINT: _paint}[does](opened.house, pictures)


@st.fragment(run_every=POLL_S)
def _wait(opened: Opening) -> None:
    """Looks again and again whether the models are there; meanwhile pictures can be chosen."""
    if opened.error:
        st.error(f"The page cannot work: {opened.error}")
    elif opened.house is None:
        opened.spare_collector()
        st.info("The models are being loaded; it takes some seconds.")
    else:
        st.rerun()


def _pictures(settings: AppSettings) -> dict[str, bytes]:
    """What was uploaded or picked, by name."""
    uploads = st.file_uploader("Pictures", accept_multiple_files=True, help="JPEG, PNG, WebP, GIF, BMP or TIFF")
    pictures = {f"{number}. {upload.name}": upload.getvalue() for number, upload in enumerate(uploads, 1)}
    if not pictures and st.checkbox("Take four drawn faces instead"):
        from celebvision.app.samples import faces

        pictures = _once(("faces",), faces)
    if len(pictures) > settings.max_pictures:
        st.warning(f"{len(pictures)} pictures: the first {settings.max_pictures} are taken.")
    return dict(list(pictures.items())[: settings.max_pictures])


def _once(key: tuple[object, ...], make: Callable[[], T]) -> T:
    """What this visitor was made before, or is made now. An error is not kept."""
    kept: OrderedDict[tuple[object, ...], Any] = st.session_state.setdefault("kept", OrderedDict())
    if key not in kept:
        kept[key] = make()
        while len(kept) > 1 and (len(kept) > KEPT or sum(map(_size_of, kept.values())) > KEPT_BYTES):
            kept.popitem(last=False)
    kept.move_to_end(key)
    found: T = kept[key]
    return found


def _size_of(made: object) -> int:
    """Bytes of pixels."""
    return int(getattr(made, "nbytes", 0))


@contextmanager
def _turn(house: House, does: str) -> Iterator[None]:
    """One's turn to compute, with one's place in the queue shown until it comes, and errors as sentences."""
    place = st.empty()

    def on_place(before: int) -> None:
        place.info(f"{before} before you: it begins as soon as there is room.")

    with house.request(does, on_place, _say):
        place.empty()
        yield


def _say(words: str) -> None:
    st.error(words)


def _label(house: House, pictures: dict[str, bytes]) -> None:
    from celebvision.app import work

    sure = st.slider("Call uncertain what is less probable than", 0.5, 1.0, 0.8, 0.01)
    models = house.models.classifiers()
    if not models:
        st.info("The registry has no classifier in production.")
    for model in models:
        with st.expander(f"What there is to know of {model.name}"):
            st.markdown(_once(("card", model.name, model.version), partial(house.models.card, model)))
            st.caption(f"version {model.version}")
    for name, data in pictures.items():
        with st.container(border=True):
            left, right = st.columns([1, 2])
            with right:
                st.markdown("**`" + _plain(name) + "`**")
                answers: list[work.Answer] = []
                versions = tuple(model.version for model in models)
                with _turn(house, "label"):
                    shown = _once(("shown", _digest(data)), partial(_thumbnail, house, data))
                    left.image(shown, alt=_plain(name))
                    answers = _once((_digest(data), versions), partial(work.labels, house.models, data))
                for answer in answers:
                    unsure = " (uncertain)" if answer.probability < sure else ""
                    words = f"{answer.model.name}: {answer.target}: **{answer.label}** {answer.probability:.1%}{unsure}"
                    st.progress(answer.probability, words)


def _thumbnail(house: House, data: bytes) -> bytes:
    """A JPEG that is small, without what the upload knew of places and dates."""
    from celebvision.app import work

    return images.encode(work.opened(house.settings, data, SIZES[0]), "jpeg")


def _redraw(house: House, pictures: dict[str, bytes]) -> None:
    from celebvision.app import work
    from celebvision.config import StyleWords

    models = {model.name: model for model in house.models.stylizers()}
    if not models:
        st.info("The registry has no style in production.")
        return
    model = models[st.selectbox("Style", list(models))]
    words = StyleWords()
    if model.architecture == "style_net":
        places, shares = st.columns(2), {}
        for number, style in enumerate(model.arguments["styles"]):
            shares[style] = places[number % 2].slider(f"Share of {style}", 0, 100, 0 if number else 100)
        chosen = {style: float(share) for style, share in shares.items() if share}
        if not chosen:
            st.info("Give one of the styles a share.")
            return
        words = StyleWords(style=list(chosen), style_weights=list(chosen.values()))
    style = _style(house) if model.architecture == "adain" else b""
    if style is None:
        return
    strength = st.slider("Strength", 0, 100, 100, help="0: the picture as it was; 100: all of the style") / 100
    size = _size(house)
    made = {}
    for name, data in pictures.items():
        with _turn(house, "redraw"):

            def draw(data: bytes = data, name: str = name) -> work.Drawn:
                pixels = work.opened(house.settings, data, size)
                if style:
                    return work.redrawn_after(house.models, model, name, pixels, style)
                return work.redrawn(house.models, model, name, pixels, words)

            drawn = _once((name, _digest(data), model.version, str(words), _digest(style), size), draw)
            made[f"{_stem(name)}.png"] = _show(work.mixed(drawn, strength))
    _offer_all(made)
    with st.expander(f"What there is to know of {model.name}"):
        st.markdown(_once(("card", model.name, model.version), partial(house.models.card, model)))


def _style(house: House) -> bytes | None:
    """The picture whose style is wanted, as it was uploaded; nothing where it is none."""
    from celebvision.app import work
    from celebvision.app.samples import painting

    upload = st.file_uploader("A painting to paint after", help="none: one that is drawn by code")
    style = upload.getvalue() if upload else _once(("painting",), painting)
    try:
        shown = work.opened(house.settings, style, SIZES[0])
        st.image(shown, "what it is painted after", 128, alt="the painting that it is painted after")
    except work.Refused as error:
        st.error(str(error))
        return None
    return style


def _paint(house: House, pictures: dict[str, bytes]) -> None:
    from celebvision.app import work

    style = _style(house)
    if style is None:
        return
    steps = st.slider("Steps", 10, 300, 60, 10)
    size = _size(house)
    if not pictures:
        return
    name = st.selectbox("Which?", list(pictures))
    begin, stop = st.columns(2)
    wanted = begin.button("Paint", type="primary", use_container_width=True)
    if stop.button("Stop", use_container_width=True):
        st.info("Stopped. The picture is as far as it came.")
    if wanted:
        st.session_state.pop("painted", None)
        bar, frame = st.progress(0.0, "begins"), st.empty()

        def on_step(share: float, shown: work.Pixels) -> None:
            # What is shown last stays, should the visitor stop it: that ends this run of the page at the next line.
            st.session_state["painted"] = (f"{_stem(name)}.png", shown)
            bar.progress(share, f"step {round(share * steps)} of {steps}")
            frame.image(shown, "as it forms", alt=f"{_plain(name)} as it forms")

        with _turn(house, "paint"):
            pixels = work.opened(house.settings, pictures[name], size)
            drawn = work.painted(house.models, name, pixels, style, steps, on_step)
            bar.empty()
            frame.empty()
            st.session_state["painted"] = (f"{_stem(name)}.png", drawn)
    if kept := st.session_state.get("painted"):
        file, shown = kept
        if isinstance(shown, work.Drawn):
            _show(shown)
        else:
            st.image(shown, "as far as it came", alt=f"{file} as far as it came")
            _offer(file, images.encode(shown, "png"))


def _digest(data: bytes) -> str:
    return sha256(data).hexdigest()


def _size(house: House) -> int:
    sizes = [size for size in SIZES if size <= house.settings.max_side]
    return int(st.select_slider("Pixels of the shorter side, at most", sizes, 256 if 256 in sizes else sizes[-1]))


def _show(drawn: Any) -> bytes:
    """Before and after, with what parts them under the visitor's hand; gives the file that is offered."""
    from celebvision.app import work

    name = _plain(drawn.name)
    at = st.slider(f"After, and before, of {name}", 0, 100, 100, key=f"at {drawn.name}") / 100
    words = f"{name} by {drawn.model.name}@{drawn.model.version}"
    st.image(work.compared(drawn, at), words, alt=f"{words}, before and after")
    data = images.encode(drawn.after, "png")
    _offer(f"{_stem(drawn.name)}.png", data)
    return data


def _offer(name: str, data: bytes) -> None:
    st.download_button(f"Download {name}", data, name, "image/png", on_click="ignore", key=f"download {name}")


def _offer_all(made: dict[str, bytes]) -> None:
    if len(made) > 1:
        from celebvision.app import work

        st.download_button("Download all", work.zipped(made), "celebvision.zip", "application/zip", on_click="ignore")


def _plain(name: str) -> str:
    """A name that somebody else gave, without what Markdown or a terminal would make of it."""
    return "".join(one if one.isalnum() or one in " ._-()" else "_" for one in name)[:80]


def _stem(name: str) -> str:
    return _plain(name).rpartition(".")[0] or _plain(name)


if __name__ == "__main__":
    main()
