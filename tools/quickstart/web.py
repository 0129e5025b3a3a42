"""The web documents of the quickstart data, in OBELICS' four columns, and the picture files behind their addresses."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from random import Random
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from PIL import Image

from tools.quickstart.album import SEED, USUAL, Album, encode, suffix
from tools.quickstart.plants import Member, Plant, Row, Twins
from tools.quickstart.scenes import Layout, Scene, describe, paint
from tools.quickstart.tables import Slot, document
from tools.quickstart.texts import say, write

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

IMAGES = "http://img.quickstart.test/"
END_OF_DOCUMENT = "END_OF_DOCUMENT_TOKEN_TO_BE_REPLACED"

LANGUAGES = {"en": 150, "zh-hans": 24, "zh-hant": 12, "ja": 22, "de": 13, "fr": 13, "es": 12, "ru": 8, "ko": 8, "it": 8}
"""How many documents are written in each."""

LEADS = ("", "", "Above: ", "In the picture: ", "Figure: ")


@dataclass(slots=True)
class Web:
    """The documents so far, the files behind their pictures, and the duplicates among them."""

    album: Album
    rows: list[Row] = field(default_factory=list)
    twins: list[Twins] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)
    shown: int = 0

    def show(self, scene: Scene, alt: str, form: str | None = None) -> Slot:
        """Put a new picture file of the scene behind an address of its own."""
        form = form or USUAL[self.shown % len(USUAL)]
        self.shown += 1
        return self.put(
            f"{'plate' if scene.layout == 'single' else scene.layout}-{self.shown:03}.{suffix(form)}",
            encode(paint(scene), form),
            alt,
            scene.size,
        )

    def put(self, name: str, data: bytes | None, alt: str = "", size: tuple[int, int] = (0, 0)) -> Slot:
        """An image whose file holds `data`; None for a file that is not there."""
        if data is not None:
            self.files[name] = data
        return Slot(url=IMAGES + quote(name), alt=alt, size=size)

    def article(
        self,
        name: str,
        language: str,
        sentences: int,
        pictures: int,
        layouts: Iterable[Layout] = ("single", "pair", "count"),
    ) -> Row:
        """A document of paragraphs with pictures between them, each followed by its caption."""
        rng, choices = Random(f"{SEED}/web/{name}"), tuple(layouts)
        text = write(language, rng, sentences)
        first, *others = text.paragraphs(pictures + 1)
        slots = [Slot(text=f"{text.title}\n\n{first}")]
        for paragraph in others:
            scene = self.album.scene(rng.choice(choices))
            said = describe(scene, rng)
            caption = (
                rng.choice(LEADS) + said
                if language == "en"
                else say("labels", language, scene.shapes[0].kind, scene.shapes[0].colour)
            )
            slots += [self.show(scene, said), Slot(text=f"{caption}\n\n{paragraph}")]
        row = Row(name, slots)
        self.rows.append(row)
        return row

    def twin(self, reason: str, why: str, *members: Member) -> None:
        """Note that these are duplicates of each other."""
        self.twins.append(Twins(reason, why, members))


def documents(album: Album) -> Web:
    """All web documents, in the order in which they were planted; `generate.py` mixes them."""
    web = Web(album)
    for language, number in LANGUAGES.items():
        for index in range(number):
            _plain(web, language, index)
    for plant in (
        _chinese_paragraphs,
        _japanese_paragraphs,
        _quoted_chinese,
        _special_words,
        _long_documents,
        _copied_texts,
        _copied_images,
        _furniture,
        _rare_files,
        _dead_images,
        _end_marks,
        _bad_rows,
    ):
        plant(web)
    return web


def _plain(web: Web, language: str, index: int) -> None:
    if language == "en":
        web.article(f"en-{index}", "en", 5 + index % 6, 1 + index % 3)
        return
    row = web.article(f"{language}-{index}", language, 4 + index % 3, 1 + index % 2, ["single"])
    if language.startswith("zh"):
        row.plants.append(Plant("dropped", "language", f"a document in Chinese ({language})"))
    if language == "ja":
        row.plants.append(Plant("kept", "", "Japanese shares its characters with Chinese"))


def _chinese_paragraphs(web: Web) -> None:
    """English documents with a Chinese paragraph between two pictures, which goes alone."""
    for index in range(24):
        row = web.article(f"mixed-zh-{index}", "en", 6 + index % 3, 2)
        language = ("zh-hans", "zh-hant")[index % 2]
        text = write(language, Random(f"{SEED}/inset/{index}"), 2 + index % 2)
        row.content.insert(3, Slot(text=text.paragraphs(1)[0]))
        row.plants.append(
            Plant("dropped", "language", f"a paragraph in Chinese ({language}) in an English document", node=3)
        )


def _japanese_paragraphs(web: Web) -> None:
    for index in range(8):
        row = web.article(f"mixed-ja-{index}", "en", 6, 2)
        row.content.insert(3, Slot(text=write("ja", Random(f"{SEED}/inset-ja/{index}"), 2).paragraphs(1)[0]))
        row.plants.append(Plant("kept", "", "a Japanese paragraph in an English document", node=3))


def _quoted_chinese(web: Web) -> None:
    for index, (quoted, meaning) in enumerate(
        {
            "小心台阶": "mind the step",
            "請勿停車": "no parking",
            "出口": "way out",
            "欢迎光临": "welcome",
            "推": "push",
        }.items()
    ):
        row = web.article(f"quoted-zh-{index}", "en", 6, 1)
        said = (
            f"An old enamel board over the door still reads “{quoted}”, which means {meaning}, although hardly "
            "anybody here can read it."
        )
        row.plants.append(Plant("kept", "", "an English paragraph that quotes a Chinese sign", node=len(row.content)))
        row.content.append(Slot(text=said))


def _special_words(web: Web) -> None:
    """Texts that spell what a chat format marks turns and images with."""
    for index, mark in enumerate(("<image>", "<|end|>")):
        row = web.article(f"special-{index}", "en", 6, 1)
        row.plants.append(
            Plant("kept", "", f"a text that spells {mark}, which has to stay letters", node=len(row.content))
        )
        row.content.append(
            Slot(
                text=f"The manual says that {mark} marks the place, and the apprentice painted exactly that on the "
                "board."
            )
        )


def _long_documents(web: Web) -> None:
    """Longer than a training sequence, so that they have to be split between nodes."""
    for index in range(3):
        row = web.article(f"long-{index}", "en", 44, 9)
        row.plants.append(Plant("kept", "", "longer than a training sequence"))


def _copied_texts(web: Web) -> None:
    """Documents that repeat another one, word for word or nearly so, with pictures of their own or none."""
    for index in range(8):
        row = web.article(f"copied-{index}", "en", 8, 2)
        copy = Row(f"copy-{index}", list(row.content))
        web.rows.append(copy)
        web.twin("exact_text", "the same document under another address", Member(row.name), Member(copy.name))
    for index in range(10):
        row = web.article(f"edited-{index}", "en", 14, 1 + index % 2)
        copy = Row(
            f"edit-{index}",
            [_edited(slot) if place == 0 else slot for place, slot in enumerate(row.content) if slot.text],
        )
        web.rows.append(copy)
        web.twin(
            "near_text",
            "the same document with one word replaced and without its pictures",
            Member(row.name),
            Member(copy.name),
        )


def _edited(slot: Slot) -> Slot:
    """The text with its last word replaced."""
    start, _, _ = (slot.text or "").rpartition(" ")
    return replace(slot, text=f"{start} again.")


def _copied_images(web: Web) -> None:
    """Pictures that appear again under another address, the same bytes or re-encoded.

    In another document, or further down.
    """
    recipes: list[tuple[str, str, Callable[[Scene], tuple[bytes, str]]]] = [
        ("exact_image", "the same file under another address", lambda scene: (encode(paint(scene), "png"), "png")),
        ("near_image", "the same picture as JPEG", lambda scene: (encode(paint(scene), "jpeg"), "jpg")),
        (
            "near_image",
            "the same picture at three quarters of its size",
            lambda scene: (encode(_smaller(scene), "webp"), "webp"),
        ),
    ]
    for index in range(24):
        reason, why, rebuild = recipes[index % 3]
        first = second = web.article(f"original-picture-{index}", "en", 6, 1)
        if index < 18:
            second = web.article(f"repeated-picture-{index}", "en", 6, 1)
        scene = web.album.scene("single")
        said = describe(scene, Random(f"{SEED}/repeated/{index}"))
        data, ending = rebuild(scene)
        first.content.append(web.show(scene, said, "png"))
        second.content.append(web.put(f"again-{index:02}.{ending}", data, said, scene.size))
        where = len(second.content) - 1
        web.twin(
            reason,
            f"{why}, in {'another' if index < 18 else 'the same'} document",
            Member(first.name, node=3),
            Member(second.name, node=where),
        )


def _smaller(scene: Scene) -> Image.Image:
    width, height = scene.size
    return paint(scene).convert("RGB").resize((width * 3 // 4, height * 3 // 4), Image.Resampling.BICUBIC)


def _furniture(web: Web) -> None:
    """What every page of a site carries: a share button, an icon, a tracking pixel, a banner, a spacer."""
    button = web.show(web.album.scene("pair", tone="white"), "Share this page", "png")
    icon, pixel, wide, tall = (
        web.put(name, encode(Image.new("RGB", size, (40, 90, 160)), "png"), size=size)
        for name, size in {
            "icon-16.png": (16, 16),
            "pixel.png": (1, 1),
            "banner.png": (640, 40),
            "divider.png": (36, 540),
        }.items()
    )
    hosts = [row for row in web.rows if row.name.startswith("en-")]
    for index, row in enumerate(hosts[:90]):
        _append(row, button, Plant("dropped", "boilerplate_image", "the same button in very many documents"))
        if index % 3 == 0:
            _append(
                row, pixel if index % 2 else icon, Plant("dropped", "image_too_small", "an icon or a tracking pixel")
            )
        if index % 10 == 1:
            _append(row, wide if index % 20 == 1 else tall, Plant("dropped", "image_ratio", "a banner or a divider"))


def _append(row: Row, slot: Slot, plant: Plant) -> None:
    row.plants.append(replace(plant, node=len(row.content)))
    row.content.append(slot)


def _rare_files(web: Web) -> None:
    """Pictures that are kept, though reading them right takes care."""
    rare = {
        "rotated jpeg": "EXIF turns it upright",
        "transparent png": "a palette with transparency: its background is white",
        "rgba png": "transparent pixels: its background is white",
        "cmyk jpeg": "four inks",
        "progressive jpeg": "sent in several passes",
        "animated gif": "the first frame counts",
        "grey png": "one channel",
    }
    hosts = [row for row in web.rows if row.name.startswith("en-")][90:]
    for index in range(21):
        form = [*rare][index % len(rare)]
        white = {"tone": "white"} if form in {"transparent png", "rgba png"} else {}
        scene = web.album.scene("single", **white)
        said = describe(scene, Random(f"{SEED}/rare/{index}"))
        row = hosts[index]
        row.plants.append(Plant("kept", "", f"{form}: {rare[form]}", node=len(row.content)))
        row.content += [
            web.show(scene, said, form),
            Slot(text=said if form != "grey png" else f"An old print of a {scene.shapes[0].kind} without colours."),
        ]


def _dead_images(web: Web) -> None:
    """Addresses behind which there is no picture; the documents stay without it."""
    whole = encode(paint(web.album.scene("count")), "jpeg")
    page = b"<!DOCTYPE html><html><head><title>Moved</title></head><body>The picture has moved.</body></html>\n"
    drawing = (
        b'<svg xmlns="http://www.w3.org/2000/svg" width="120" height="120"><circle cx="60" cy="60" r="50"/></svg>\n'
    )
    dead: list[tuple[str, str, Slot]] = [
        *(("http_client_error", "a dead link", web.put(f"gone/{index}.jpg", None)) for index in range(14)),
        *(
            (
                "undecodable",
                "a file cut off in the middle",
                web.put(f"cut-{index}.jpg", whole[: len(whole) * (3 + index) // 10]),
            )
            for index in range(3)
        ),
        *(
            ("not_an_image", "a web page called .jpg", web.put(f"page-{index}.jpg", page + b" " * index))
            for index in range(3)
        ),
        ("not_an_image", "a vector drawing", web.put("drawing.svg", drawing)),
        ("empty_body", "an empty file", web.put("empty.png", b"")),
        ("bad_url", "a file of this machine", Slot(url="file:///etc/hostname")),
        (
            "undecodable",
            "a data address with a damaged picture",
            Slot(url="data:image/gif;base64,R0lGODlhAQABAAAAACw="),
        ),
        ("bad_url", "no host", Slot(url="http:///lost.png")),
        ("forbidden_address", "a private address", Slot(url="http://10.0.0.7/camera.jpg")),
        (
            "forbidden_address",
            "a link-local address, where clouds keep their secrets",
            Slot(url="http://169.254.169.254/latest/meta-data"),
        ),
        (
            "too_many_pixels",
            "a small file of 36 million pixels",
            web.put("huge.png", encode(Image.new("1", (6000, 6000)), "png"), size=(6000, 6000)),
        ),
    ]
    hosts = [row for row in web.rows if row.name.startswith("en-")][112:]
    for row, (reason, why, slot) in zip(hosts, dead, strict=False):
        _append(row, slot, Plant("failed", reason, why))
    lone = Row(
        "only-dead",
        [web.put("gone/lone.png", None)],
        [Plant("dropped", "nothing_left", "a document of one dead image")],
    )
    web.rows.append(lone)


def _end_marks(web: Web) -> None:
    """OBELICS' own end marks, left inside: they vanish, and the rest stays."""
    for index in range(6):
        row = web.article(f"end-mark-{index}", "en", 6, 1)
        if index % 2:
            row.content.append(Slot(text=END_OF_DOCUMENT))
        else:
            row.content[0] = replace(
                row.content[0], text=row.content[0].text.replace("\n\n", f"\n\n{END_OF_DOCUMENT}\n\n", 1)
            )
        row.plants.append(Plant("kept", "", "holds an end mark of OBELICS, which has to vanish"))


def _bad_rows(web: Web) -> None:
    """Rows that have not OBELICS' form. `content` of these is the finished row."""
    good = document("bad", [Slot(text="A short text about a lost parcel."), web.put("gone/parcel.png", None)])
    bad: dict[str, dict[str, Any]] = {
        "lists of different lengths": {"images": [None]},
        "an image and a text in one place": {"images": [IMAGES + "plate-001.png", good["images"][1]]},
        "a place that holds nothing": {"texts": [None, None]},
        "general_metadata that is no JSON": {"general_metadata": "{"},
        "no lists at all": {"images": None, "texts": None},
    }
    for why, change in bad.items():
        web.rows.append(Row(f"bad: {why}", {**good, **change}, [Plant("failed", "bad_row", why)]))
    web.rows.append(
        Row(
            "empty",
            {**good, "images": [], "texts": [], "metadata": "[]"},
            [Plant("failed", "empty_row", "empty lists")],
        )
    )
