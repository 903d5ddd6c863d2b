"""A face drawn by code from CelebA's attributes: nobody's picture, yet what is said of it can be seen in it."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageChops, ImageDraw, ImageFilter
from PIL.Image import Resampling

WIDTH, HEIGHT = 178, 218  # of CelebA's aligned pictures, whose coordinates all drawing uses

Colour = tuple[int, int, int]
Points = npt.NDArray[np.float64]  # N 2: x, y
Curve = Sequence[tuple[float, float]] | Points

SKINS = (
    (247, 219, 198),
    (238, 200, 170),
    (224, 180, 146),
    (200, 150, 114),
    (160, 112, 80),
    (120, 80, 58),
    (90, 60, 46),
)
PALE_SKINS = ((250, 232, 222), (246, 226, 218))
HAIRS = {
    "Black_Hair": (34, 29, 30),
    "Blond_Hair": (212, 176, 108),
    "Brown_Hair": (98, 66, 44),
    "Gray_Hair": (170, 168, 166),
}
OTHER_HAIRS = ((138, 66, 36), (66, 46, 36), (70, 56, 60), (136, 106, 74))
LIPSTICKS = ((186, 30, 52), (204, 60, 96), (150, 28, 60), (212, 88, 100))
IRISES = ((84, 54, 34), (60, 40, 30), (74, 110, 146), (86, 112, 72), (110, 86, 50))
CLOTHS = ((30, 32, 40), (70, 80, 110), (180, 60, 60), (225, 220, 212), (90, 110, 90))
FELTS = ((40, 42, 52), (150, 40, 44), (60, 84, 120), (196, 178, 140))
METALS = ((214, 178, 84), (206, 208, 214), (240, 236, 228))
TURN = np.linspace(0, 2 * np.pi, 32, endpoint=False)
CIRCLE = np.stack([np.cos(TURN), np.sin(TURN)], axis=1)
RING = np.sign(CIRCLE) * abs(CIRCLE) ** 0.6  # a circle on its way to a square
STEP = np.linspace(0, 1, 6, endpoint=False)[:, None]
# Catmull-Rom: what each of four neighbouring points weighs along the way from the second to the third.
WEIGHTS = 0.5 * np.hstack([
    -STEP + 2 * STEP**2 - STEP**3, 2 - 5 * STEP**2 + 3 * STEP**3, STEP + 4 * STEP**2 - 3 * STEP**3, STEP**3 - STEP**2,
])  # fmt: skip


def draw_face(
    rng: np.random.Generator, attributes: Mapping[str, bool], size: tuple[int, int] = (WIDTH, HEIGHT)
) -> Image.Image:
    """Draw a face with these CelebA attributes; what they leave open (skin, light, pose, background) is `rng`'s.

    An attribute that is not given is absent, save `No_Beard` and `Young`. `size` is width, height in pixels.
    """
    image = _background(rng, (2 * size[0], 2 * size[1]))
    shade = Image.fromarray(_light(rng))
    _Face(rng, attributes, image, shade).draw()
    image = ImageChops.soft_light(
        image.reduce(2), shade.filter(ImageFilter.BoxBlur(1)).resize(size, Resampling.BICUBIC)
    )
    if attributes.get("Blurry"):
        image = image.filter(ImageFilter.BoxBlur(2 * size[0] / WIDTH))
    grain = int(rng.integers(2, 9))
    noise = rng.bytes(3 * size[0] * size[1]).translate(bytes(level * 2 * grain // 256 for level in range(256)))
    return ImageChops.add(image, Image.frombytes("RGB", size, noise), offset=-grain)


class _Canvas:
    """Shapes on an image, placed from the face's axis (x) and the picture's top (y), then turned and zoomed."""

    def __init__(self, image: Image.Image, roll: float, zoom: float) -> None:
        self.pen = ImageDraw.Draw(image)
        self.axis = 0.0
        scale = np.array([image.width / WIDTH, image.height / HEIGHT])
        turn = np.array([[np.cos(roll), np.sin(roll)], [-np.sin(roll), np.cos(roll)]])
        self.matrix = zoom * turn * scale
        self.offset = np.array([89, 115]) * scale - np.array([0, 115]) @ self.matrix
        self.scale = float(scale[0])

    def shape(self, points: Curve, fill: Colour) -> None:
        points = np.asarray(points)
        self.polygon(_curve(np.concatenate([points, points[:1]]), closed=True), fill)

    def polygon(self, points: Points, fill: Colour) -> None:
        self.pen.polygon(self._placed(points).ravel().tolist(), fill=fill)

    def oval(self, x: float, y: float, rx: float, ry: float, fill: Colour) -> None:
        self.polygon(CIRCLE * (rx, ry) + (x, y), fill)

    def line(self, points: Curve, fill: Colour, width: float = 1.0) -> None:
        width = max(1, round(width * self.scale))
        places = self._placed(_curve(np.asarray(points))).ravel().tolist()
        self.pen.line(places, fill=fill, width=width)

    def hair(
        self, rng: np.random.Generator, outer: Points, inner: Points, colour: Colour, strands: int, along: bool = True
    ) -> None:
        """Fill between two curves with as many points each; strands run along them, or from one to the other."""
        outer, inner = self._placed(_curve(outer)), self._placed(_curve(inner))
        self.pen.polygon(np.concatenate([outer, inner[::-1]]).ravel().tolist(), fill=colour)
        if along:
            lines = outer[::2] + rng.random((strands, 1, 1)) * (inner - outer)[::2]
        else:
            start = rng.integers(len(outer) - 2, size=strands)
            lines = np.stack([outer[start], inner[start + 2]], axis=1)
        for line, light in zip(
            lines.reshape(strands, 2 * lines.shape[1]).tolist(), rng.random(strands).tolist(), strict=True
        ):
            self.pen.line(line, _toned(colour, 0.76 + 0.48 * light), 2)

    def _placed(self, points: Points) -> Points:
        placed: Points = points @ self.matrix + (self.offset + self.axis * self.matrix[0])
        return placed


class _Face:
    """One person, and the order in which they are painted: `shade` is the soft light that lies over `image`."""

    def __init__(
        self, rng: np.random.Generator, attributes: Mapping[str, bool], image: Image.Image, shade: Image.Image
    ) -> None:
        self.rng = rng
        self.has = {name for name, value in ({"No_Beard": True, "Young": True} | dict(attributes)).items() if value}
        self.yaw, roll, zoom = rng.uniform(-1, 1), rng.normal(0, 0.05), rng.uniform(0.94, 1.08)
        self.canvas, self.shade = _Canvas(image, roll, zoom), _Canvas(shade, roll, zoom)
        skins = PALE_SKINS if "Pale_Skin" in self.has else SKINS[:4] if "Blond_Hair" in self.has else SKINS
        self.skin = _near(rng, skins[min(int(rng.exponential(2)), len(skins) - 1)], 5)
        hairs = [colour for name, colour in HAIRS.items() if name in self.has] or OTHER_HAIRS
        self.colour = _one_of(rng, hairs, 6)
        self.male = "Male" in self.has
        self.rx = 46 + rng.normal(0, 1.5) + 2 * self.male + 4 * ("Chubby" in self.has) - 3 * ("Oval_Face" in self.has)
        self.jaw = 2.05 + 0.45 * self.male + 0.3 * ("Chubby" in self.has) + rng.normal(0, 0.12)
        self.chin = 182 + rng.normal(0, 2) + 2 * self.male
        self.long = "Bald" not in self.has and rng.random() < (0.06 if self.male else 0.86)

    def draw(self) -> None:
        self.canvas.axis = self.shade.axis = -4 * self.yaw
        if self.long:
            self.hair_behind()
        self.body()
        self.head()
        self.canvas.axis = self.shade.axis = 0.0
        self.eyes()
        self.nose()
        self.canvas.axis = -2 * self.yaw
        self.beard()
        self.mouth()
        self.canvas.axis = -4 * self.yaw
        if "Bald" not in self.has:
            self.hair()
        self.ornaments()

    def body(self) -> None:
        canvas, rng, neck = self.canvas, self.rng, 25.0 + 6 * self.male
        cloth = _one_of(rng, CLOTHS, 25)
        canvas.shape(_both([(neck, 150), (neck + 5, 215), (0, 225)]), _toned(self.skin, 0.84))
        self.shade.oval(0, self.chin + 2, 32, 10, (92, 88, 90))
        dip = rng.uniform(206, 226) - 8 * self.male
        canvas.shape(_both([(0, dip), (neck + 4, 192), (62, 202), (105, 212), (140, 290)]), cloth)
        if "Wearing_Necktie" in self.has:
            canvas.polygon(_both([(0, 215), (30, 190), (34, 230)]), (238, 238, 240))
            canvas.polygon(_both([(6, 203), (4, 211), (11, 235)]), _near(rng, (120, 40, 60), 60))
        if "Wearing_Necklace" in self.has:
            metal = _one_of(rng, METALS)
            canvas.line(_both([(0, 206), (neck * 0.6, 199), (neck, 186)]), metal, 1.8)
            canvas.oval(0, 208, 3, 3.5, metal)

    def head(self) -> None:
        canvas, rx = self.canvas, self.rx
        for side in (-1, 1):
            canvas.oval(side * (rx + 1), 118, 6, 12, _toned(self.skin, 0.9))
        canvas.polygon(self.outline(rx, self.chin), self.skin)
        if "Double_Chin" in self.has:
            canvas.line(_both([(0, self.chin + 8), (22, self.chin - 1)]), _toned(self.skin, 0.62), 1.8)
        for side in (-1, 1):
            self.shade.oval(side * (rx - 3), 142, 8, 30, (112, 108, 110))
            if "High_Cheekbones" in self.has:
                self.shade.oval(side * 30, 127, 11, 6, (162, 158, 154))
                self.shade.oval(side * 33, 146, 7, 12, (108, 104, 106))
            if "Rosy_Cheeks" in self.has:
                self.shade.oval(side * 29, 134, 13, 10, (205, 92, 106))
        self.shade.oval(0, 78, 24, 11, (146, 144, 142))
        if "Young" not in self.has:
            for y in (78, 85):
                canvas.line(_both([(0, y - 1), (20, y + 1)]), _toned(self.skin, 0.84))
            for side in (-1, 1):
                canvas.line([(side * 13, 132), (side * 20, 142), (side * 24, 153)], _toned(self.skin, 0.76), 1.3)

    def outline(self, rx: float, chin: float) -> Points:
        """The head as a curve: half an ellipse above the eyes; below, the squarer the stronger the jaw."""
        x, y = CIRCLE.T
        power = np.where(y > 0, 2 / self.jaw, 1)
        high = np.where(y > 0, chin - 112, -62)
        return np.stack([rx * np.sign(x) * abs(x) ** power, 112 + high * abs(y) ** power], axis=1)

    def eyes(self) -> None:
        canvas, rng, has = self.canvas, self.rng, self.has
        iris, gaze = _one_of(rng, IRISES, 8), rng.uniform(-2, 2)
        high = (3.2 if "Narrow_Eyes" in has else 4.9) - 0.5 * self.male + rng.normal(0, 0.3)
        brow, arch = _toned(self.colour, 0.62), 4.0 * ("Arched_Eyebrows" in has) + rng.normal(0.5, 0.4)
        thick = max(1.8, 2.6 + 1.6 * self.male + 2.6 * ("Bushy_Eyebrows" in has) + rng.normal(0, 0.5))
        lash = 1.2 + 1.3 * ("Heavy_Makeup" in has) + 0.4 * (not self.male)
        for side in (-1, 1):
            x, y = side * 19.5, 111.0
            if "Heavy_Makeup" in has:
                self.shade.oval(x, y - 5, 13, 6, (104, 84, 112))
            self.shade.oval(x - side * 8, y - 3, 7, 6, (110, 108, 110))
            lid = [(x - side * 10, y + 1.5), (x - side * 4, y - high), (x + side * 4, y - high), (x + side * 10.5, y)]
            canvas.shape([*lid, (x + side * 4, y + high * 0.7), (x - side * 4, y + high * 0.75)], (240, 236, 232))
            canvas.oval(x + gaze, y - 0.4, min(4.5, high + 0.4), min(4.5, high), iris)
            canvas.oval(x + gaze, y - 0.4, 2.1, min(2.1, high), (14, 12, 14))
            canvas.oval(x + gaze + 1.5, y - 2, 1, 1, (250, 250, 250))
            wing = [(x + side * (11 + lash), y - lash)] if "Heavy_Makeup" in has else []
            canvas.line([*lid, *wing], (36, 26, 26), lash)
            crease = [(x - side * 8, y - high), (x, y - high - 4), (x + side * 11, y - 4)]
            canvas.line(crease, _toned(self.skin, 0.74), 0.8)
            if "Bags_Under_Eyes" in has:
                canvas.line([(x - 9, y + 6), (x, y + 9.5), (x + 9, y + 6)], _toned(self.skin, 0.74), 1.4)
            top = [(side * 8, 100 - thick), (side * 22, 97 - arch - thick), (side * 33, 101 - arch / 4)]
            canvas.shape([*top, (side * 21, 97.5 - arch), (side * 8.5, 100.5)], brow)

    def nose(self) -> None:
        canvas, x = self.canvas, 3.5 * self.yaw
        wide = 8.2 + 3.4 * ("Big_Nose" in self.has) - 1.6 * ("Pointy_Nose" in self.has) + 0.7 * self.male
        dark = np.sign(self.yaw) * 5
        self.shade.shape([(dark * 0.8, 108), (x + dark * 1.6, 130), (x + dark, 137), (x, 128)], (100, 96, 98))
        self.shade.shape([(-1.5, 104), (1.5, 104), (x + 3, 131), (x - 3, 131)], (160, 158, 156))
        canvas.axis = x
        wings = _both([(0, 139.5), (wide - 3, 137), (wide + 0.5, 135), (wide, 131)])
        canvas.line(wings, _toned(self.skin, 0.7), 1.1)
        for side in (-1, 1):
            canvas.oval(side * wide * 0.48, 136.3, 2.1, 1.2, _toned(self.skin, 0.42))

    def mouth(self) -> None:
        canvas, has, y = self.canvas, self.has, 153.0
        canvas.axis = self.shade.axis = 2 * self.yaw
        smile = (5.5 if "Smiling" in has else 0) + self.rng.normal(0, 0.5)
        half = (20.5 if "Smiling" in has else 16.5) + self.rng.normal(0, 0.8) + self.male
        upper, lower = (4.6, 6.4) if "Big_Lips" in has else (3.4 - 0.9 * self.male, 4.8 - 0.9 * self.male)
        gap = self.rng.uniform(4, 8) if "Mouth_Slightly_Open" in has else 0.0
        lip = _mixed(self.skin, (170, 74, 80), 0.34 if self.male else 0.5)
        if "Wearing_Lipstick" in has:
            lip = _one_of(self.rng, LIPSTICKS, 10)
        rest, low = y + smile * 0.4, y + smile * 0.4 + gap
        end, seam = (half, y - smile), [(0, rest), (half * 0.5, rest - smile * 0.35)]
        over = [(0, rest - upper * 0.7), (half * 0.4, rest - upper - smile * 0.3)]
        under = [(half * 0.5, low + lower * 0.8 - smile * 0.3), (0, low + lower)]
        canvas.shape(_both([*over, end, *under]), lip)
        if gap:
            canvas.shape(_both([*seam, end, (half * 0.5, low - gap * 0.2), (0, low)]), (92, 26, 32))
            canvas.shape(_both([*seam, (half * 0.45, rest + gap * 0.45)]), (242, 238, 230))
        else:
            canvas.line(_both([*seam, end]), _toned(lip, 0.55), 1.1)
        self.shade.oval(0, rest + gap + lower + 4, 11, 3, (104, 100, 102))

    def beard(self) -> None:
        if "No_Beard" in self.has:
            return
        canvas, rng, colour = self.canvas, self.rng, _toned(self.colour, 0.82)
        parts = {"Goatee", "Mustache", "Sideburns", "5_o_Clock_Shadow"} & self.has
        if not parts or "5_o_Clock_Shadow" in parts:
            jaw = self.outline(self.rx, self.chin + 2)
            outer = jaw[jaw[:, 1] > 124]
            outer = outer[np.argsort(outer[:, 0])]
            across = np.linspace(-1, 1, len(outer))
            inner = np.stack([across * (self.rx - 10), 162 + 4 * abs(across) - 46 * abs(across) ** 3], axis=1)
            stubble = _mixed(self.skin, (60, 60, 68), 0.22)
            canvas.hair(rng, outer, inner, stubble if parts else colour, 0 if parts else 30)
            parts = parts or {"Goatee", "Mustache"}
        if "Goatee" in parts:
            outer, inner = _both([(0, self.chin + 3), (16, 172), (15, 161)]), _both([(0, 163), (6, 163), (7, 162)])
            canvas.hair(rng, outer, inner, colour, 16)
        if "Mustache" in parts:
            outer, inner = _both([(0, 148), (11, 149), (21, 156)]), _both([(0, 142.5), (9, 142), (19, 147)])
            canvas.hair(rng, outer, inner, colour, 14)

    def hair_behind(self) -> None:
        self.low, self.fall = self.rng.uniform(155, 240), self.rng.uniform(6, 18)
        wide, low = self.rx + self.fall, self.low - 6
        back = _both([(0, 40), (wide * 0.95, 90), (wide, low - 12), (wide * 0.6, low)])
        self.canvas.shape(back, _toned(self.colour, 0.66))

    def hair(self) -> None:
        canvas, rng, rx, has = self.canvas, self.rng, self.rx, self.has
        full, line, temple = rng.uniform(3, 9) + 3 * self.long, 70 + rng.normal(0, 2), 84.0
        part, combed = rng.choice((-1, 1)) * rng.uniform(2, 22), self.long or rng.random() < 0.4
        if combed:
            line -= 10
        if "Receding_Hairline" in has:
            line, temple = 58.0, 70.0
        if "Bangs" in has:
            line, temple, part, combed = 97.0, 97.0, 0.0, False
        ear = 128.0 if "Sideburns" in has else 112.0
        wave = np.array([4.0, 2.5]) * ("Wavy_Hair" in has)
        y = np.linspace(78, self.low, 12) if self.long else np.empty(0)
        for side in (-1, 1) if self.long else ():
            sway = np.sin(y / 8.5 + rng.uniform(0, 6))
            outer_x = rx + self.fall * np.linspace(0.45, 1.1, 12) + wave[0] * sway
            inner_x = rx - np.array([14, 8, 4, 2, 1, 1, 2, 4, 7, 10, 13, 15]) + wave[1] * sway
            canvas.hair(rng, np.stack([side * outer_x, y], 1), np.stack([side * inner_x, y], 1), self.colour, 14)
        outer = _both([(0, 42 - full), (rx * 0.72, 54 - full), (rx + 3 + full / 2, 86), (rx + 2, ear)])
        inner = _both([(0, line), (rx * 0.62, temple - 4), (rx - 7, temple + 6), (rx - 3, ear)])
        outer[3, 0], inner[3, 0] = 0.4 * part, part
        outer[1:-1] += rng.normal(0, 0.5 + wave[0] / 2, (5, 2))
        canvas.hair(rng, outer, inner, self.colour, 24 if combed else 44, combed)

    def ornaments(self) -> None:
        canvas, rng, rx = self.canvas, self.rng, self.rx
        if "Wearing_Hat" in self.has:
            felt = _one_of(rng, FELTS, 16)
            canvas.shape(_both([(26, 24), (rx + 3, 52), (rx + 7, 86), (0, 78)]), felt)
            brim = rng.choice((4, 22))
            canvas.shape(_both([(0, 70), (rx + brim, 82), (rx + 4, 90), (0, 84)]), _toned(felt, 0.75))
        for side in (-1, 1) if "Wearing_Earrings" in self.has else ():
            metal, drop = _one_of(rng, METALS), rng.uniform(2.5, 6)
            canvas.oval(side * (rx + 3), 131 + drop, 2.8, drop, metal)
        if "Eyeglasses" in self.has:
            canvas.axis, frame = 0.0, _near(rng, (46, 38, 40), 30)
            sun, wide, high = rng.random() < 0.25, rng.uniform(14, 17), rng.uniform(9, 13)
            for side in (-1, 1):
                x = side * 20.5
                ring = RING * (wide, high) + (x, 112.5)
                if sun:
                    canvas.polygon(ring, (34, 30, 36))
                canvas.line(np.concatenate([ring, ring[:1]]), frame, 2.0)
                canvas.line([(x + side * wide, 109), (side * (rx + 1), 108)], frame, 2.2)
            canvas.line(_both([(0, 107.5), (20.5 - wide, 110)]), frame, 2.2)


def _curve(points: Points, closed: bool = False) -> Points:
    """Catmull-Rom spline through `points`; when closed, the last is the first again."""
    before, after = (points[-2:-1], points[1:2]) if closed else (points[:1], points[-1:])
    all_points = np.concatenate([before, points, after])
    windows = np.stack([all_points[i : len(all_points) - 3 + i] for i in range(4)], axis=1)
    return np.concatenate([(WEIGHTS @ windows).reshape(-1, 2), points[-1:]])


def _both(right: Sequence[tuple[float, float]]) -> Points:
    """A curve given by its right half, with the left mirrored; points on the axis (x = 0) are not doubled."""
    return np.array([(-x, y) for x, y in reversed(right) if x] + list(right), dtype=float)


def _toned(colour: Colour, light: float) -> Colour:
    return min(255, int(colour[0] * light)), min(255, int(colour[1] * light)), min(255, int(colour[2] * light))


def _mixed(one: Colour, other: Colour, share: float) -> Colour:
    red, green, blue = (int(a + (b - a) * share) for a, b in zip(one, other, strict=True))
    return red, green, blue


def _one_of(rng: np.random.Generator, colours: Sequence[Colour], spread: float = 0) -> Colour:
    return _near(rng, colours[int(rng.integers(len(colours)))], spread)


def _near(rng: np.random.Generator, colour: Colour, spread: float) -> Colour:
    red, green, blue = (colour + rng.normal(0, spread, 3) * (1, 0.6, 0.6)).clip(0, 255).astype(int).tolist()
    return red, green, blue


def _background(rng: np.random.Generator, size: tuple[int, int]) -> Image.Image:
    base = rng.uniform(20, 235) + rng.normal(0, 14, 3)
    patches = (base + rng.normal(0, rng.uniform(2, 34), (5, 4, 1)) + rng.normal(0, 6, (5, 4, 3))).clip(0, 255)
    smooth = Image.fromarray(patches.astype(np.uint8)).resize((size[0] // 4, size[1] // 4), Resampling.BICUBIC)
    image = smooth.resize(size, Resampling.NEAREST)
    pen = ImageDraw.Draw(image)
    for x, y, wide, high in rng.random((rng.integers(5), 4)) * (size[0], size[1], size[0] / 3, size[1] / 2):
        red, green, blue = base.clip(0, 255).astype(int).tolist()
        pen.rectangle((x, y, x + wide, y + high), fill=_near(rng, (red, green, blue), 22))
    return image


def _light(rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Soft light's neutral grey, brighter where the light comes from, a little tinted: uint8, 55 45 3."""
    y, x = np.mgrid[-1:1:55j, -1:1:45j]
    grey = 128 + rng.normal(0, 12) + x * rng.normal(0, 24) + y * rng.normal(-8, 12)
    light: npt.NDArray[np.uint8] = (grey[..., None] + rng.normal(0, 3, 3)).clip(20, 235).astype(np.uint8)
    return light
