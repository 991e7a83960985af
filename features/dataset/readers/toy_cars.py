"""Toy cars: a fine-grained data set that is drawn instead of downloaded, in the Stanford devkit's format.

A class is a body type (the silhouette) of a make (grille, lights, wheels, roof line). Photos of one class differ in colour,
background, pose, light and noise, so that only details identify the class, not colour.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from features.dataset.config import ToyCars
from features.runtime.atomic import atomic_path, read_text, write_text
from features.runtime.errors import DatasetError
from features.runtime.log import relative
from features.runtime.workers.threads import in_threads

SCALE = 3
"""Supersampling factor: drawn this many times larger, then shrunk, for smooth edges."""

DRAWING = 2
"""Version of the drawings; photos of another version are redrawn."""

Point = tuple[float, float]


@dataclass(frozen=True)
class Body:
    """A silhouette in units of the car's length: the cabin's outline from the windscreen's foot to the rear, and heights."""

    name: str
    roof: tuple[Point, ...]
    bonnet: float
    boot: float


# x runs from the nose (0) to the tail (1), y from the sill (0) up.
BODIES = (
    Body("Sedan", ((0.27, 0.19), (0.40, 0.33), (0.66, 0.33), (0.80, 0.19)), 0.18, 0.18),
    Body("Coupe", ((0.32, 0.18), (0.47, 0.30), (0.60, 0.30), (0.88, 0.17)), 0.17, 0.16),
    Body("Hatchback", ((0.25, 0.20), (0.37, 0.35), (0.78, 0.34), (0.93, 0.21)), 0.19, 0.21),
    Body("Wagon", ((0.27, 0.19), (0.39, 0.34), (0.90, 0.33), (0.97, 0.19)), 0.18, 0.19),
    Body("SUV", ((0.24, 0.25), (0.33, 0.42), (0.90, 0.42), (0.96, 0.25)), 0.25, 0.25),
    Body("Pickup", ((0.27, 0.24), (0.37, 0.40), (0.55, 0.40), (0.58, 0.23)), 0.24, 0.22),
    Body("Van", ((0.10, 0.24), (0.22, 0.45), (0.94, 0.46), (0.98, 0.24)), 0.22, 0.24),
)
MAKES = (
    "Aldra", "Borealis", "Cintra", "Dorado", "Elwood", "Fenix", "Garnet", "Halden", "Ilmen", "Jarrah", "Kestrel", "Lumen",
    "Mirador", "Norvik", "Ostara", "Pallas", "Quill", "Rivage", "Sable", "Tamar", "Umber", "Vesper", "Wyvern", "Xenia",
    "Yarrow", "Zephyr", "Argent", "Brio",
)  # fmt: skip


@dataclass(frozen=True)
class Make:
    """The details that identify a make: styles by number, sizes in units of the car's length."""

    grille: int
    lights: int
    spokes: int
    wheel: float
    roof: float
    beltline: int


def make_of(number: int) -> Make:
    """The make's details. Neighbouring makes share some of them, so classes are fine-grained."""
    grilles, lights, spokes = (0, 1, 2, 3), (0, 1, 2, 3), (5, 0, 8, 3, 6)
    return Make(
        grilles[number % 4],
        lights[(number // 2 + number // 8) % 4],
        spokes[(number + number // 4) % 5],
        (0.082, 0.094)[(number // 2) % 2],
        (0.0, 0.022, -0.018)[number % 3],
        (number + number // 3) % 3,
    )


def class_name(label: int) -> str:
    """`Aldra Sedan`, … : all body types of the first make, then the next."""
    return f"{MAKES[label // len(BODIES)]} {BODIES[label % len(BODIES)].name}"


def write_toy_cars(dataset: ToyCars, folder: Path) -> None:
    """Draws the photos as `car_ims/000001.jpg`, … and writes `cars_annos.mat` in the devkit's combined form.

    Every photo is a pure function of (seed, class, number, size). Existing photos with the same parameters are kept.
    """
    parameters = dataset.model_dump(mode="json", include={"classes", "per_class", "image_size", "seed"})
    parameters["drawing"] = DRAWING
    tasks = [
        (label, number, folder / "car_ims" / f"{label * dataset.per_class + number + 1:06d}.jpg")
        for label in range(dataset.classes)
        for number in range(dataset.per_class)
    ]
    done, annotations = folder / "drawn.json", folder / "cars_annos.mat"
    drawn = _drawn(done)
    if drawn == parameters and annotations.exists() and all(file.exists() for *_, file in tasks):
        return
    done.unlink(missing_ok=True)

    def draw(task: tuple[int, int, Path]) -> tuple[int, int, int, int]:
        label, number, file = task
        image, box = draw_car(label, dataset.seed, number, dataset.image_size)
        with atomic_path(file) as temporary:
            image.save(temporary, quality=88)
        return box

    boxes = in_threads(draw, tasks, "drawing toy cars")
    _write_annotations(annotations, [label for label, *_ in tasks], boxes, dataset.classes)
    write_text(done, json.dumps(parameters))


def _drawn(file: Path) -> Any:
    """The parameters of the photos on disk; None if there are none."""
    advice = "Delete it; the photos will be drawn again."
    try:
        return json.loads(read_text(file, advice)) if file.exists() else None
    except ValueError as error:
        raise DatasetError(f"{relative(file)} is damaged ({error}). {advice}") from None


def _write_annotations(file: Path, labels: list[int], boxes: list[tuple[int, int, int, int]], classes: int) -> None:
    from scipy.io import savemat

    fields = ["relative_im_path", "bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2", "class", "test"]
    rows = np.empty((1, len(labels)), dtype=[(field, object) for field in fields])
    for position, (label, box) in enumerate(zip(labels, boxes, strict=True)):
        values: list[Any] = [f"car_ims/{position + 1:06d}.jpg", *box, label + 1, int(position % 2 == 1)]
        rows[0, position] = tuple(values)
    names = np.empty((1, classes), dtype=object)
    names[0, :] = [class_name(label) for label in range(classes)]
    with atomic_path(file) as temporary:
        savemat(temporary, {"annotations": rows, "class_names": names}, appendmat=False)


def draw_car(label: int, seed: int, number: int, size: int) -> tuple[Image.Image, tuple[int, int, int, int]]:
    """One photo of `size` × `size` pixels, and the car's box (x1, y1, x2, y2), 1-based, both ends inclusive."""
    digest = hashlib.sha256(f"{seed}/{label}/{number}".encode()).digest()
    random = np.random.Generator(np.random.Philox(key=np.frombuffer(digest[:16], np.uint64)))
    large = size * SCALE
    picture = _background(random, large)
    car = _car(random, BODIES[label % len(BODIES)], make_of(label // len(BODIES)), large)
    mask = car.getchannel("A")
    picture.paste(car, (0, 0), mask)
    if random.random() < 0.5:
        picture, mask = (image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) for image in (picture, mask))
    _draw_post(random, picture, large)
    picture = picture.resize((size, size), Image.Resampling.LANCZOS)
    if random.random() < 0.3:
        picture = picture.filter(ImageFilter.GaussianBlur(random.uniform(0.3, 1.0) * size / 128))
    pixels = np.asarray(picture, np.float32)
    pixels = (pixels - 128) * random.uniform(0.65, 1.15) + 128 + random.uniform(-30, 30)
    pixels += random.normal(0, random.uniform(2, 12), pixels.shape)
    left, top, right, bottom = mask.getbbox() or (0, 0, large, large)
    box = (left // SCALE + 1, top // SCALE + 1, math.ceil(right / SCALE), math.ceil(bottom / SCALE))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8)), box


def _colour(random: np.random.Generator, low: int = 20, high: int = 235) -> tuple[int, int, int]:
    red, green, blue = random.integers(low, high, 3)
    return int(red), int(green), int(blue)


def _shade(colour: tuple[int, int, int], factor: float) -> tuple[int, int, int]:
    red, green, blue = (min(255, int(channel * factor)) for channel in colour)
    return red, green, blue


def _background(random: np.random.Generator, large: int) -> Image.Image:
    """Sky, ground and a few blurred shapes (houses, trees)."""
    picture = Image.new("RGB", (large, large), _colour(random, 110, 250))
    draw = ImageDraw.Draw(picture)
    horizon = random.uniform(0.35, 0.65) * large
    for _ in range(random.integers(2, 8)):
        x, width, height = (
            random.uniform(-0.1, 1) * large,
            random.uniform(0.08, 0.4) * large,
            random.uniform(0.1, 0.5) * large,
        )
        shape = draw.rectangle if random.random() < 0.6 else draw.ellipse
        shape((x, horizon - height, x + width, horizon + 0.04 * large), fill=_colour(random))
    draw.rectangle((0, horizon, large, large), fill=_colour(random, 60, 170))
    blur = ImageFilter.GaussianBlur(random.uniform(0.004, 0.02) * large / SCALE)  # cheaper on the small picture
    return picture.reduce(SCALE).filter(blur).resize((large, large), Image.Resampling.BILINEAR)


def _draw_post(random: np.random.Generator, picture: Image.Image, large: int) -> None:
    """Sometimes draws a post in front of the car."""
    if random.random() < 0.35:
        draw = ImageDraw.Draw(picture)
        x, width = random.uniform(0, 1) * large, random.uniform(0.02, 0.07) * large
        draw.rectangle((x, random.uniform(0.2, 0.6) * large, x + width, large), fill=_colour(random, 20, 120))


def _car(random: np.random.Generator, body: Body, make: Make, large: int) -> Image.Image:
    """The car on a transparent picture, nose to the left, in an oblique projection that shows its front."""
    layer = Image.new("RGBA", (large, large))
    draw = ImageDraw.Draw(layer)
    length = random.uniform(0.60, 0.78) * large
    depth = random.uniform(0.10, 0.16) * length  # how far the front face reaches to the left
    slope = random.uniform(0.25, 0.55) * depth  # and how far up
    tilt = math.radians(random.uniform(-5, 5))
    left = (large - length + depth) / 2 + random.uniform(-0.06, 0.06) * large
    ground = random.uniform(0.62, 0.80) * large
    stretch = random.uniform(1.1, 1.4)

    def at(x: float, y: float, back: float = 0.0) -> Point:
        """Car coordinates (units of its length; `back` 0 = near side, 1 = far side) to pixels."""
        px = x * length - back * depth
        py = -y * length * stretch - back * slope
        return (
            left + px * math.cos(tilt) - py * math.sin(tilt),
            ground + px * math.sin(tilt) + py * math.cos(tilt),
        )

    paint = _colour(random, 30, 240)
    glass = _shade(_colour(random, 60, 120), 0.8)
    trim = random.integers(10, 50)
    dark = (int(trim), int(trim), int(trim))
    sill, roof = 0.045, [(x, y + (make.roof if 0 < i < 3 else 0)) for i, (x, y) in enumerate(body.roof)]
    shadow = [at(-0.03, 0.0), at(1.02, 0.0), at(0.95, -0.03), at(-0.1, -0.02, 0.4)]
    draw.polygon(shadow, fill=(20, 20, 20, 150))
    side = [at(0, sill), at(0, body.bonnet - 0.03), at(0.03, body.bonnet), *(at(x, y) for x, y in roof)]
    side += [at(0.985, body.boot), at(1.0, body.boot - 0.05), at(1.0, sill)]
    draw.polygon([at(x, y, 1) for x, y in roof] + [at(x, y) for x, y in roof[::-1]], fill=_shade(paint, 0.75))
    draw.polygon([at(roof[0][0], roof[0][1]), at(*roof[1]), at(*roof[1], 1), at(*roof[0], 1)], fill=glass)
    draw.polygon(
        [at(0.03, body.bonnet), at(roof[0][0], roof[0][1]), at(*roof[0], 1), at(0.03, body.bonnet, 1)],
        fill=_shade(paint, 1.15),
    )
    draw.polygon(side, fill=paint)
    _side_details(draw, at, make, body, roof, (paint, glass, dark))
    draw.polygon(
        [at(0, sill), at(0, body.bonnet - 0.02), at(0, body.bonnet - 0.02, 1), at(0, sill, 1)], fill=_shade(paint, 0.85)
    )
    _front(draw, at, make, body.bonnet, dark)
    for x in (0.19, 0.80):
        _wheel(draw, at(x, 0.03), make, length, random.uniform(0, 2 * math.pi))
    return layer


def _side_details(draw: ImageDraw.ImageDraw, at: Any, make: Make, body: Body, roof: list[Point], colours: Any) -> None:
    """Windows with pillars, door lines, the make's crease along the side, the rear light and the sill."""
    paint, glass, dark = colours
    (ax, ay), (bx, by), (cx, cy), (dx, dy) = roof
    draw.polygon(
        [at(ax + 0.03, ay + 0.012), at(bx + 0.008, by - 0.018), at(cx - 0.008, cy - 0.018), at(dx - 0.05, dy + 0.012)],
        fill=glass,
    )
    for share in (0.38, 0.68) if cx - bx > 0.2 else (0.5,):
        x = bx + share * (cx - bx)
        draw.line([at(x, by), at(x, 0.06)], fill=_shade(paint, 0.6), width=4)
    top = body.bonnet - 0.02
    crease = {0: [(0.05, top - 0.03), (0.95, top - 0.03)], 1: [(0.05, 0.10), (0.95, top - 0.03)], 2: []}[make.beltline]
    if crease:
        draw.line([at(*point) for point in crease], fill=_shade(paint, 0.65), width=5)
    draw.polygon(
        [at(0.955, top - 0.01), at(1.0, top - 0.02), at(1.0, top - 0.06), at(0.97, top - 0.06)], fill=(170, 20, 25)
    )
    draw.line([at(0.0, 0.05), at(1.0, 0.05)], fill=dark, width=5)


def _front(draw: ImageDraw.ImageDraw, at: Any, make: Make, bonnet: float, dark: tuple[int, int, int]) -> None:
    """Grille and lights on the front face, in coordinates (height, depth)."""

    def face(low: float, high: float, near: float, far: float) -> list[Point]:
        span = bonnet - 0.07
        return [at(0, 0.05 + span * y, back) for y, back in ((low, near), (high, near), (high, far), (low, far))]

    chrome = (205, 205, 210)
    if make.grille == 0:  # horizontal bars
        draw.polygon(face(0.25, 0.75, 0.25, 0.75), fill=dark)
        for low in (0.35, 0.5, 0.65):
            draw.polygon(face(low - 0.03, low + 0.03, 0.25, 0.75), fill=chrome)
    elif make.grille == 1:  # vertical bars in a tall frame
        draw.polygon(face(0.1, 0.9, 0.36, 0.64), fill=chrome)
        for near in (0.39, 0.47, 0.55):
            draw.polygon(face(0.15, 0.85, near, near + 0.05), fill=dark)
    elif make.grille == 2:  # two kidneys
        for near in (0.28, 0.52):
            draw.polygon(face(0.3, 0.75, near, near + 0.2), fill=chrome)
            draw.polygon(face(0.36, 0.69, near + 0.03, near + 0.17), fill=dark)
    else:  # a wide, low grille
        draw.polygon(face(0.05, 0.35, 0.12, 0.88), fill=dark)
    lamp = (250, 246, 215)
    for near in (0.03, 0.79):
        if make.lights == 0:  # round
            (x1, y1), _, (x2, y2), _ = face(0.55, 0.85, near, near + 0.18)
            radius = max(abs(y2 - y1), abs(x2 - x1)) / 2
            x, y = (x1 + x2) / 2, (y1 + y2) / 2
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=lamp, outline=dark, width=3)
        elif make.lights == 1:  # slit
            draw.polygon(face(0.72, 0.84, near, near + 0.18), fill=lamp)
        elif make.lights == 2:  # square
            draw.polygon(face(0.5, 0.88, near + 0.02, near + 0.16), fill=lamp, outline=dark)
        else:  # two above each other
            draw.polygon(face(0.72, 0.9, near, near + 0.16), fill=lamp)
            draw.polygon(face(0.42, 0.6, near, near + 0.16), fill=lamp)


def _wheel(draw: ImageDraw.ImageDraw, centre: Point, make: Make, length: float, angle: float) -> None:
    """A tyre and its rim: spokes, or a plain disc."""
    x, y = centre
    tyre, rim = make.wheel * length, make.wheel * length * 0.66

    def circle(radius: float, fill: tuple[int, int, int]) -> None:
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=fill)

    circle(tyre * 1.12, (15, 15, 15))
    circle(tyre, (38, 38, 40))
    circle(rim, (185, 188, 192) if make.spokes == 0 else (70, 70, 74))
    for spoke in range(make.spokes):
        turn = angle + 2 * math.pi * spoke / make.spokes
        end = (x + rim * math.cos(turn), y + rim * math.sin(turn))
        draw.line([centre, end], fill=(205, 208, 212), width=max(2, int(rim * 0.22)))
    circle(rim * 0.22, (90, 90, 95))
