"""A small residual network for aligned faces."""

from torch import Tensor, nn
from torch.nn.functional import relu

from celebvision.models.preprocessing import Preprocessing

HEIGHT, WIDTH = 109, 89  # half of CelebA's 218x178


class CNN(nn.Module):
    """A residual network of 3x3 convolutions for aligned faces, pooled by place.

    Basic blocks with batch normalisation (He et al. 2015, arXiv:1512.03385), departing from it where aligned faces
    and processors without a GPU ask for it:

    - 109x89 is half of CelebA's 218x178, a scale that a JPEG decoder gives nearly for nothing.
    - The stem has one stride-2 convolution and 16 channels and the first block strides again, so that little is done
      at high resolution, where a pass over memory costs most.
    - A shortcut that shrinks averages before its 1x1 convolution instead of skipping pixels (ResNet-D, He et al.
      2018, arXiv:1812.01187).
    - Global average pooling forgets where a feature was, though in an aligned face the place says what it is. Each
      channel has its own weight per place instead (the global depthwise convolution of MobileFaceNets, Chen et al.
      2018, arXiv:1804.07573), which is the average at first.
    - Channels are multiples of 16, which bfloat16 kernels are blocked by: five blocks of 32, 64, 64, 128, 128
      channels train at 874 images/s on two Zen 4 threads, four of 48, 96, 96, 192 at 418.

    Args:
        outputs: number of binary attributes, one logit each.
        width: channels of the first residual stage; each later stage doubles them.
        depths: residual blocks per stage.
        dropout: on the pooled features.
    """

    def __init__(
        self, outputs: int = 1, width: int = 32, depths: tuple[int, ...] = (1, 2, 2), dropout: float = 0.1
    ) -> None:
        super().__init__()
        if outputs < 1 or width < 2 or not depths or min(depths) < 1:
            raise ValueError(f"outputs, width and depths must be positive: {outputs=} {width=} {depths=}")
        self.preprocessing = Preprocessing(HEIGHT, WIDTH, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
        self.stem = nn.Sequential(ConvNorm(3, width // 2, stride=2), nn.ReLU(inplace=True))
        stages: list[nn.Module] = []
        channels = width // 2
        for stage, depth in enumerate(depths):
            for block in range(depth):
                stages.append(Residual(channels, width << stage, stride=2 if block == 0 else 1))
                channels = width << stage
        self.stages = nn.Sequential(*stages)
        height, breadth = HEIGHT, WIDTH
        for _ in range(1 + len(depths)):
            height, breadth = (height + 1) // 2, (breadth + 1) // 2
        self.pool = nn.Conv2d(channels, channels, (height, breadth), groups=channels, bias=False)
        nn.init.constant_(self.pool.weight, 1 / (height * breadth))
        self.pool_norm = nn.BatchNorm1d(channels)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(channels, outputs)

    def forward(self, images: Tensor) -> Tensor:
        """Give logits, B outputs, for normalised images, float, B 3 109 89.

        Raises:
            ValueError: another shape; the pooling has one weight per place, so it cannot take it.
        """
        if images.shape[1:] != (3, HEIGHT, WIDTH):
            raise ValueError(f"CNN takes RGB images of {HEIGHT}x{WIDTH} pixels, got {list(images.shape)}")
        features = self.stages(self.stem(images))  # B C 7 6
        pooled = (features * self.pool.weight[:, 0]).sum(dim=(2, 3))
        logits: Tensor = self.fc(self.dropout(self.pool_norm(pooled)))
        return logits


class ConvNorm(nn.Module):
    """A 3x3 (or 1x1) convolution and its batch normalisation, which `Classifier` folds into one."""

    def __init__(self, inputs: int, outputs: int, *, kernel: int = 3, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(outputs)
        nn.init.kaiming_normal_(self.conv.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, features: Tensor) -> Tensor:
        normed: Tensor = self.bn(self.conv(features))
        return normed


class Residual(nn.Module):
    """Two 3x3 convolutions around a shortcut (He et al. 2015, arXiv:1512.03385)."""

    def __init__(self, inputs: int, outputs: int, *, stride: int) -> None:
        super().__init__()
        self.first = ConvNorm(inputs, outputs, stride=stride)
        self.second = ConvNorm(outputs, outputs)
        nn.init.zeros_(self.second.bn.weight)
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.AvgPool2d(stride, ceil_mode=True, count_include_pad=False), ConvNorm(inputs, outputs, kernel=1)
            )

    def forward(self, features: Tensor) -> Tensor:
        change = self.second(relu(self.first(features), inplace=True))
        return relu(change + self.shortcut(features), inplace=True)


ARCHITECTURE = CNN
