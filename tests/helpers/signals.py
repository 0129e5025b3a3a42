"""Custom signals without a model, and partitions to ask them about."""

from __future__ import annotations

import base64
import io
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from pydantic.dataclasses import dataclass

from tests.helpers.upstream import encoded, picture
from vlmill.pipeline.core.config import STRICT
from vlmill.pipeline.core.detections import Detection
from vlmill.pipeline.core.sample import (
    IMAGES,
    ImageStats,
    Node,
    Sample,
    SampleId,
    write_image_stats,
    write_rows,
    write_samples,
)
from vlmill.pipeline.filters.custom import hash_code
from vlmill.pipeline.signals.custom import CustomSignal
from vlmill.pipeline.signals.faces import Faces
from vlmill.pipeline.signals.text_in_image import TextInImage

SIGNALS = """
import os, time
from dataclasses import dataclass

import numpy as np

@dataclass(frozen=True)
class Redness:
    name = "redness"
    side = 16
    batch = 8

    def score(self, model, batch):
        return batch.images[..., 0].mean((1, 2)) / 255

@dataclass(frozen=True)
class Exclamations:
    name = "exclamations"
    of = "texts"
    mark: str = "!"

    def load(self):
        return self.mark

    def score(self, model, batch):
        return [sum(text.count(model) for text in texts) for texts in batch.texts]

@dataclass(frozen=True)
class Fragile:
    name = "fragile"
    of = "texts"
    batch = 4
    always: bool = False

    def score(self, model, batch):
        if self.always or any("KILL" in text for texts in batch.texts for text in texts):
            os.kill(os.getpid(), 9)
        if any("HANG" in text for texts in batch.texts for text in texts):
            time.sleep(600)
        return [len(texts[0]) if texts else 0 for texts in batch.texts]
"""


def make_signal(kind: str, **settings: Any) -> CustomSignal:
    """One of the signals above, whose code may run."""
    running = {name: settings.pop(name) for name in ("seconds",) if name in settings}
    return CustomSignal(kind, settings, hash_code(SIGNALS), SIGNALS, "signals.py", **running)


CHINESE = base64.b85decode(
    "iBL{Q4GJ0x0000DNk~Le0002`000110RR910M1Fa1poj8d`Uz>RCwC$mQQFLRT#j3@9k!1tVwpH9`=wX8!v+N5Cx$^=ng2wLl0F?"
    "-cm1u7lY&wA!J`vte4Pws|U@Bdavj~dvVr)tsrb9-ZQb$U9`w-CX|^tGoOc<wYv-INkPbWnfDF9_x+!bQNrI!Tk{Wc0{oXi$FKrB"
    "J#N0w5hOqgVo29^KqKdF3mfjBd+J`Q0Wx46(0pB+p#l#0Eda|v3du&D<J`s4G^Hk957&iiQfWu2rJRU*N)0sUu`)yYQos7>CV<Ml"
    "^|Sj~l=&rBL~j~cqZCT8m$}DB1yD*9Bzx^3fPNVufQu^zCZRl(a`4{IldcO;hR>e48r*#Z5Ch9ySxg(9Zy)N0ovk}zH0RNjE3$nx"
    "7H_zcmy8We{{TSxI$SG(W_`W63~)p0FZjTN?^yn=jDuCDvtKc2;J6HwBXt4jUw-plWehTZ<xsiG<U!Vc1twXENezJ1VVWPESMGs^"
    "pKbyqF!lVUpt@yFC+kmX^{F~b0%)>U06+zNJ~Hq&i5YJ9TZ;#I8R^X9fOzSIl~L`O0?@7vzywfViZAnYq(=s34W~GL<pN~-HDXQw"
    "aWiPQNN&t|LVR`;%*SIRm*qj?Ev(-F5@l1w5ahs-SM-Oq2v8CYZkLZh!|ve4?w2#Phz?&I06hTlU-px3uqeT7b-TZPj&LKI>-tTP"
    "YB+0&r{TH-whQwMlcxmi3zd42*oQVCqw;%F96I^KE029hf9eY-8|GgC++w7P4HZN0Xb3oHw}DhC$IT#uGIY%lFb%}24)`|w2AEM7"
    "R-*xw!Z=t4_CUkVFi-}p&<CEhG~cnWH|p7t5fNYcRw!XCcTqCi@L_I-YB4vShPm?vds;q_d4I0a_v>R5G`l)bGuHtvX*hWwcthGo"
    "<=!^D=T>$gc;GK8sakx`8J5aK!@z2@D5Ti0y5CSUfuEcjv9Pb{5l>k*=XjQiacxx|chLe+{$pkVMdVdRW3Zyb8df)s$T!K1Lx0L1"
    "u@EffN@M_>)>yk^dtma=D|S&ejD`wjMH7YcN!}!P%z_7i4|4sBeASErc@=EP>N5a6e-x0|9$fPt2DlT9S-2GeT!XDV&x@ar0x^UA"
    "y$L|<oEZf)w-3e1T;#0MKyRs5A0|Y)+kuo4iKR(NLJ1{nG{V73^3=(X*8d0i19nD{YP*Wm_y7O^07*qoM6N<$f&"
)
"""A picture that says 我们的数据没有备份 and 请打开这个文件, in Noto Sans."""

JAPANESE = base64.b85decode(
    "iBL{Q4GJ0x0000DNk~Le0002s000110RR910RF|NBme*cwMj%lRCwC$)Uj?HWfTSA?;j7cg+lDok*w_c4Gf~7Vy8fak~hGqX!8Il"
    "9!p5HE-8>=QREp?ATbsc+c`=_IX0G1q$sS{5v<MZT#A{sO`?<_3jfWF{xkR9bI+Z7Qh58x+<^ZT_|$2hiZ{XX;uS1SMpu!iDF;!("
    "(|tsNqqS?1ZGofvC79bCA|lQrB4QTjXHkpEl8;ACYcnFl1f0WQ)YmLWk2^wL&1e5;B30v_ZKTA{Ix6$E161~|wG!V#n;(P3umkH9"
    "=PtT$9)7>nL_+i;tS~b!q51PWyDO*_9ax!9<6cjByO(Pr-x?>@nQ5laOJ6>@E_}&YP3Diher+l-)O?=6bp4k;>!b(ULK?!viGA*T"
    "LRIu&Q}$VMpY?0?1u8P0FG|$0=2L$AfnqDwWE?XC<F@a^OFTfd%Mrgu#G@EYB1Uoc`;Vh4A`T)l);R(DOB}4I*~FlbN!yG;af^zl"
    "r|x2-AR;0LadplfJ=y7B(~T$mi(r(zdK=gtWG0KLX&JVnT%;`*O9+24oLsB9Iy=478OYI^bA(hyfz13eYIn#K7X))MGgc3yBFfE)"
    "6OM0j+^6mK3`UO`JE-58ry8Zqq}#I<sTzwt?yfNC6o{Xy6zg^lBVrKEPP97_@u(fOqv#YG>K{$XdCnGzOf`BK_hw~h1Lq6osUx&T"
    "+g}!@wBIzWqn6pGF?~(d2Bn<jboIqXcX_)9w_aS1>?&@#3o2eNv~31oAHCo6%?pVrE+{85=3DDm6Rf-8=2V4@+05XuW?v;eFne`r"
    "3mMZsWtnO|y8Lm9Eg2{8!Yqa!ut7uB*+R~EdExONaNFdzR5$sDBQo~#5*sI_L19@Qnfog?yPCtyyzt&88--kbi|yQ9h_l#fzZ%4B"
    "HQqQkp74JJ{|4meNySCWh9Lj|002ovPDHLkV1f"
)
"""A picture that says ファイルを開いて and 保存してください, in Noto Sans."""


def draw_text(*lines: str) -> bytes:
    """A picture of 300 px that says this, 22 px high."""
    image = Image.new("RGB", (300, 10 + 34 * len(lines)), "white")
    pen, font = ImageDraw.Draw(image), ImageFont.load_default(22)
    for number, line in enumerate(lines):
        pen.text((10, 6 + 34 * number), line, "black", font)
    return encoded(image, "PNG")


def draw_faces(*places: tuple[int, int], size: tuple[int, int] = (320, 192)) -> bytes:
    """A white picture with black squares of 32 px, on a grid of these: what tests.helpers.models' detectors find."""
    image = Image.new("RGB", size, "white")
    for column, row in places:
        image.paste("black", (32 * column, 32 * row, 32 * column + 32, 32 * row + 32))
    return encoded(image, "PNG")


def draw_poison(red: int) -> bytes:
    """A picture that `PoisonedFaces` and `PoisonedText` die of: red 250 kills and 251 hangs."""
    return encoded(Image.new("RGB", (64, 64), (red, 0, 0)), "PNG")


def take_poison(drawn: np.ndarray) -> None:
    """Die of a picture of `draw_poison`."""
    if drawn[0, 0].tolist() == [250, 0, 0]:
        os.kill(os.getpid(), 9)
    if drawn[0, 0].tolist() == [251, 0, 0]:
        time.sleep(600)


@dataclass(frozen=True, config=STRICT)
class PoisonedFaces(Faces):
    """Faces, by a detector that some pictures kill."""

    def look(self, model: Any, picture: np.ndarray) -> tuple[Sequence[float], Sequence[Detection]]:
        """As above."""
        take_poison(picture)
        return super().look(model, picture)


@dataclass(frozen=True, config=STRICT)
class PoisonedText(TextInImage):
    """Text, by a reader that some pictures kill."""

    def look(self, model: Any, picture: np.ndarray) -> tuple[Sequence[float], Sequence[Detection]]:
        """As above."""
        take_poison(picture)
        return super().look(model, picture)


def make_talk(*turns: tuple[object, ...]) -> list[object]:
    """A conversation for `write_partition`: of each turn what the user shows and says, and the answer."""
    return [
        Talk("assistant" if place == len(turn) - 1 else "user", number, thing)
        for number, turn in enumerate(turns)
        for place, thing in enumerate(turn)
    ]


class Talk(NamedTuple):
    """A node of a turn. Answers are supervised."""

    role: Literal["user", "assistant"]
    turn: int
    thing: object  # as `write_partition` has it


def write_partition(folder: Path, samples: list[list[object]]) -> dict[str, Path]:
    """The tables of a partition: texts, files of pictures, and numbers of pictures of 40 x 30 px.

    None is a picture that is damaged.
    """
    made, images, stats = [], [], []
    for row, things in enumerate(samples):
        nodes = []
        for given in things:
            role, turn, thing = given if isinstance(given, Talk) else Talk("none", 0, given)  # type: ignore[arg-type]
            if isinstance(thing, str):
                nodes.append(Node("text", role, turn, supervised=role == "assistant", text=thing))
                continue
            nodes.append(Node("image", role, turn, image=len(images)))
            data = thing if isinstance(thing, bytes) else picture(thing, (40, 30)) if thing is not None else b"damaged"
            reason = "undecodable" if thing is None else None
            images.append(
                {"image": len(images), "url": None, "reason": None, "detail": None, "media_type": None, "bytes": data}
            )
            width, height = (40, 30) if thing is None else Image.open(io.BytesIO(data)).size
            stats.append(ImageStats(len(stats), reason, width=width, height=height))
        made.append(Sample(SampleId("made", "a.parquet", row), tuple(nodes)))
    folder.mkdir(parents=True, exist_ok=True)
    write_samples(folder / "samples.parquet", made)
    write_rows(folder / "images.parquet", IMAGES, images)
    write_image_stats(folder / "image_stats.parquet", stats)
    return {name: folder / name for name in ("samples.parquet", "images.parquet", "image_stats.parquet")}
