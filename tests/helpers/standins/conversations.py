"""Stand-ins for LLaVA's JSON about image files: captions, the 665 thousand conversations, and what adds to them.

The repositories hold JSON alone, or pictures in archives beside it; the pictures that rows name lie unpacked in the
stand-in's folder of pictures, in the place where upstream's README puts them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from tests.helpers.standins.dataset import Dataset
from tests.helpers.standins.material import Material
from tests.helpers.standins.tree import Row, Tree, pack_tar
from tests.helpers.upstream import talk

MIX_FOLDERS = {
    "llava": "coco/train2017/{:012d}.jpg",
    "sharegpt": "",
    "vqav2": "coco/train2017/{:012d}.jpg",
    "okvqa": "coco/train2017/{:012d}.jpg",
    "aokvqa": "coco/train2017/{:012d}.jpg",
    "refcoco": "coco/train2017/{:012d}.jpg",
    "gqa": "gqa/images/{}.jpg",
    "ocrvqa": "ocr_vqa/images/{:010d}.jpg",
    "textcaps": "textvqa/train_images/{:016x}.jpg",
    "visual_genome": "vg/VG_100K/{}.jpg",
    "visual_genome_2": "vg/VG_100K_2/{}.jpg",
}
"""Where the pictures lie of each set that the 665 thousand were made of; ShareGPT has none."""

PROMPTS = ("Render a clear and concise summary of the photo.", "What is this?", "Share a concise interpretation.")


def _pick_id(subset: str, number: int) -> int:
    """The number in a picture's name; each set has others."""
    return list(MIX_FOLDERS).index(subset) * 1000 + number if subset in MIX_FOLDERS else number


def write_instruct(tree: Tree, rows: Mapping[str, int]) -> None:
    """The 665 thousand in one array, sets one after another; and a smaller file of the first release."""
    tree.write_card("cc-by-4.0", task_categories=["visual-question-answering"])
    good = [_mix_row(tree, subset, number) for subset, count in rows.items() for number in range(count)]
    tree.write_json("llava_v1_5_mix665k.json", tree.mix(good, _odd_mix_rows(tree)))
    tree.write_json("conversation_58k.json", tree.mix(_write_dialogues(tree, rows.get("llava", 1))))
    tree.write("llava_instruct_80k.json", json.dumps(good[:1]).encode())


def _write_dialogues(tree: Tree, count: int) -> list[dict[str, Any]]:
    """Conversations of two or three turns; COCO's pictures are named without their folder."""
    material, rows = tree.material("conversation"), list[dict[str, Any]]()
    for number in range(count):
        path = f"{material.original(number) + 500:012d}.jpg"
        tree.write_picture(path, material.picture(number, form="JPEG"))
        asked = [material.question(number + turn) for turn in range(2 + number % 2)]
        said = [text for place, one in enumerate(asked) for text in (one, material.sentences(number + place))]
        turns = talk(f"{said[0]}\n<image>", *said[1:])
        rows.append({"id": path.partition(".")[0], "image": path, "conversations": turns})
    return rows


def _mix_row(tree: Tree, subset: str, number: int) -> dict[str, Any]:
    material, form = tree.material(subset), MIX_FOLDERS[subset]
    if not form:
        turns = talk(material.question(number), material.sentences(number, 3))
        return {"id": f"sg{number}_0", "model": "", "conversations": turns}
    path = form.format(_pick_id(subset, material.original(number)))
    tree.write_picture(path, material.picture(number, form="JPEG"))
    first = f"<image>\n{material.question(number)}" if number % 2 else f"{material.question(number)}\n<image>"
    more = [material.question(number), material.sentences(number)] if number % 3 == 1 else []
    turns = talk(first, material.sentences(number), *more)
    return {"id": str(_pick_id(subset, number // 2)), "image": path, "conversations": turns}  # ids are used again


def _odd_mix_rows(tree: Tree) -> list[Row]:
    """ShareGPT's cuts: one that begins with an answer, one that ends with a question, one with an empty answer."""
    material = tree.material("sharegpt")
    said = talk(material.question(90), material.sentences(90))
    return [
        ({"id": "cut_1", "model": "", "conversations": said[1:]}, "bad_row"),
        ({"id": "cut_2", "model": "", "conversations": [*said, said[0]]}, "bad_row"),
        ({"id": "cut_3", "conversations": talk(material.question(91), "")}, "bad_row"),
    ]


def write_pretrain(tree: Tree, rows: Mapping[str, int]) -> None:
    """558 thousand captions as conversations of one turn; the pictures in an archive, in numbered folders."""
    tree.write_card("other")
    _write_captions(tree, rows["default"], "blip_laion_cc_sbu_558k.json", "{:05d}/{:09d}.jpg")
    tree.write("blip_laion_cc_sbu_558k_meta.json", b"[]")


def write_cc3m_pretrain(tree: Tree, rows: Mapping[str, int]) -> None:
    """595 thousand captions of CC3M; the pictures in an archive, without folders."""
    tree.write_card("other")
    _write_captions(tree, rows["default"], "chat.json", "GCC_train_{:.0s}{:09d}.jpg")
    tree.write("metadata.json", b"[]")


def _write_captions(tree: Tree, count: int, name: str, form: str) -> None:
    material, packed, good = tree.material("default"), dict[str, bytes](), list[dict[str, Any]]()
    for number in range(count):
        original, drawing = material.original(number), material.picture(number, form="JPEG")
        path = form.format("" if ".0s" in form else original % 3, original)
        packed[path] = drawing.data
        tree.write_picture(path, drawing)
        prompt = PROMPTS[number % len(PROMPTS)]
        asked = f"<image>\n{prompt}" if number % 2 else f"{prompt}\n<image>"
        turns = talk(asked, material.sentences(number, 1))
        good.append({"id": f"{number:09d}", "image": path, "conversations": turns})
    empty = {"id": "000000090", "image": next(iter(packed)), "conversations": talk("<image>\nWhat is this?", "")}
    tree.write_json(name, tree.mix(good, [(empty, "bad_row")]))
    tree.write_zip("images.zip", packed)


def write_lvis(tree: Tree, rows: Mapping[str, int]) -> None:
    """220 thousand conversations about COCO's pictures, those of its validation set too."""
    tree.write_card("")
    good = _simple_rows(tree, tree.material("default"), rows["default"], "coco/val2017/{:012d}.jpg")
    tree.write_json("lvis_instruct4v_220k.json", tree.mix(good))


def write_lrv(tree: Tree, rows: Mapping[str, int]) -> None:
    """Instructions about photographs, which are named by id, and charts, by file; pictures of both in one folder."""
    few = max(1, rows["default"] // 4)
    scenes = _answer_pictures(tree, tree.material("default"), max(1, rows["default"] - 2 * few), "{:07d}", ".jpg")
    tree.write_json("filter_cap1.json", tree.mix(scenes, [({**scenes[0], "answer": ""}, "empty_row")]))
    more = _answer_pictures(tree, tree.material("more"), few, "9{:06d}", ".jpg")
    tree.write_json("filter_cap_more1.json", tree.mix(more))
    charts = _answer_pictures(tree, tree.material("chart"), few, "{}.png", "")
    tree.write_json("chart_release_update.json", tree.mix(charts))


def _answer_pictures(tree: Tree, material: Material, count: int, form: str, suffix: str) -> list[dict[str, Any]]:
    """A question and an answer about a picture each; every third is about what is not there."""
    rows = list[dict[str, Any]]()
    for number in range(count):
        name = form.format(material.original(number))
        tree.write_picture(name + suffix, material.picture(number, form="PNG" if ".png" in form else "JPEG"))
        answer = (
            f"There is no such thing. {material.sentences(number)}" if number % 3 == 2 else material.sentences(number)
        )
        about = {"task": "caption"} if suffix else {}
        rows.append({"image_id": name, "question": material.question(number), "answer": answer, **about})
    return rows


def write_sharegpt4v(tree: Tree, rows: Mapping[str, int]) -> None:
    """100 thousand long captions, pictures of several sets."""
    tree.write_card("cc-by-nc-4.0", task_categories=["visual-question-answering", "question-answering"])
    material, good = tree.material("default"), list[dict[str, Any]]()
    for number in range(rows["default"]):
        folder = ("coco/train2017/{:012d}.jpg", "sam/images/sa_{}.jpg", "web-landmark/images/{}.jpg")[number % 3]
        path = folder.format(material.original(number))
        tree.write_picture(path, material.picture(number, form="JPEG"))
        turns = talk(f"{material.question(number)}\n<image>", material.sentences(number, 6))
        good.append({"id": str(number), "image": path, "conversations": turns})
    tree.write_json("sharegpt4v_instruct_gpt4-vision_cap100k.json", tree.mix(good))


def _simple_rows(tree: Tree, material: Material, count: int, form: str) -> list[dict[str, Any]]:
    """Conversations of one turn about a picture each."""
    rows = list[dict[str, Any]]()
    for number in range(count):
        path = form.format(material.original(number))
        tree.write_picture(path, material.picture(number, form="PNG" if form.endswith("png") else "JPEG"))
        turns = talk(f"<image>\n{material.question(number)}", material.sentences(number))
        rows.append({"id": str(number), "image": path, "conversations": turns})
    return rows


MID_SUBSETS = ("ureader_tr", "synthdog_en", "synthdog_zh", "evol_instruct")


def write_mid(tree: Tree, rows: Mapping[str, int]) -> None:
    """JSON per set with the pictures in archives of at most 5 GB each; the texts of one set are Chinese."""
    tree.write_card("apache-2.0", languages=("zh", "en"), task_categories=["text-generation"])
    for subset, count in rows.items():
        material, good = tree.material(subset), list[dict[str, Any]]()
        language = {"synthdog_zh": "zh", "synthdog_en": "en"}.get(subset, "")
        packed = dict[str, bytes]()
        for number in range(count):
            row: dict[str, Any] = {"id": f"{number:06d}", "conversations": [], "data_source": subset}
            asked = material.question(number)
            if subset != "evol_instruct":
                row["image"] = f"{subset}/images/{number}.jpg"
                drawing = material.picture(number, form="JPEG")
                packed[row["image"]] = drawing.data
                tree.write_picture(f"{subset}/{row['image']}", drawing)
                asked = "<image>\nPlease output the text in the image."
            row["conversations"] = talk(asked, material.sentences(number, 2, language=language))
            good.append(row)
        tree.write_json(f"{subset}/{subset}_processed.json", tree.mix(good, [_empty_answer(subset)]))
        if packed:
            _write_archives(tree, f"{subset}/{subset}_images", packed.items())


def write_m4(tree: Tree, rows: Mapping[str, int]) -> None:
    """Conversations about one to three pictures in one array; the pictures in archives by set."""
    tree.write_card("cc-by-4.0", task_categories=["visual-question-answering", "question-answering"])
    material, good, packed = tree.material("default"), list[dict[str, Any]](), dict[str, bytes]()
    for number in range(rows["default"]):
        paths = [f"nlvr2/images/{number}_{place}.jpg" for place in range(1 + number % 3)]
        for place, path in enumerate(paths):
            drawing = material.picture(number * 3 + place, form="JPEG")
            packed[path] = drawing.data
            tree.write_picture(path, drawing)
        turns = talk("<image>" * len(paths) + f"\n{material.question(number)}", material.sentences(number))
        about = {"dataset": "nlvr2", "split": "train", "num_sample": rows["default"], "task_instruction": ""}
        good.append({"sample_id": number, "image": paths, "conversations": turns, "metadata": about})
    first = next(iter(packed))
    swapped = [{**turn, "from": other} for turn, other in zip(good[0]["conversations"], ("gpt", "human"), strict=True)]
    odd = [
        ({"sample_id": 90, "image": [first], "conversations": swapped}, "bad_row"),
        ({"sample_id": 91, "image": [first], "conversations": talk("<image>\nWhat?", "")}, "bad_row"),
    ]
    tree.write_json("m4_instruct_annotations.json", tree.mix(good, odd))
    tree.write_zip("nlvr2.zip", packed)


def _empty_answer(subset: str) -> Row:
    return {"id": "000090", "conversations": talk("What?", ""), "data_source": subset}, "bad_row"


def _write_archives(tree: Tree, stem: str, members: Iterable[tuple[str, bytes]]) -> None:
    """Two gzipped tars, where there are two members."""
    listed = list(members)
    for number, part in enumerate((listed[::2], listed[1::2]), 1):
        if part:
            tree.write(f"{stem}_{number}.tar.gz", pack_tar(part))  # plain: a gzip header would hold the time


DATASETS = (
    Dataset(
        "liuhaotian/LLaVA-Instruct-150K",
        write_instruct,
        files="llava_v1_5_mix665k.json, conversation_58k.json",
        shape="array of id, image: path, conversations of from and value; text alone has no image but `model`",
        kind="llava",
        images="a folder that holds coco/ gqa/ ocr_vqa/ textvqa/ vg/",
        licence="cc-by-4.0",
        known="LLaVA's README and code: file, keys, paths; the loader skips a first turn that is not human's",
        guessed="how often rows are cut; empty answers; that conversation_58k names pictures without a folder",
        subsets=tuple(MIX_FOLDERS),
    ),
    Dataset(
        "liuhaotian/LLaVA-Pretrain",
        write_pretrain,
        files="blip_laion_cc_sbu_558k.json, images.zip",
        shape="array of id, image: path in the archive, conversations",
        kind="llava",
        images="the archive (zip://::.../images.zip), or the folder it was unpacked to",
        licence="other",
        known="the tree page of the repository: files, licence; LLaVA's code: keys",
        guessed="the keys of the meta file; an empty answer",
    ),
    Dataset(
        "liuhaotian/LLaVA-CC3M-Pretrain-595K",
        write_cc3m_pretrain,
        files="chat.json, metadata.json, images.zip",
        shape="array of id, image: GCC_train_000000000.jpg, conversations",
        kind="llava",
        images="the archive, or the folder it was unpacked to",
        licence="other",
        known="LLaVA's docs/Data.md: files, picture names",
        guessed="the licence's spelling; an empty answer",
    ),
    Dataset(
        "X2FD/LVIS-Instruct4V",
        write_lvis,
        files="lvis_instruct4v_220k.json",
        shape="as LLaVA-Instruct-150K, pictures of COCO train2017 and val2017",
        kind="llava",
        images="LLaVA-1.5's folder, with coco/val2017",
        licence="",
        known="prismatic-vlms, scripts/additional-datasets/lvis_instruct_4v.py",
        guessed="which folder of COCO a path names",
    ),
    Dataset(
        "FuxiaoLiu/LRV-Instruction",
        write_lrv,
        files="filter_cap1.json, filter_cap_more1.json, chart_release_update.json",
        shape="arrays of image_id, question, answer; of a photograph the id, of a chart the file",
        kind="table",
        options={"image": "image_id", "file": "{image}.jpg", "question": "question", "answer": "answer"},
        images="a folder with the pictures of image.tar.gz and chart_image.zip",
        licence="",
        known="prismatic-vlms, scripts/additional-datasets/lrv_instruct.py: files, keys, pictures. On Google Drive",
        guessed="the key task, its values, an empty answer; that ids are texts (numbers are read as well)",
        on_hub=False,
    ),
    Dataset(
        "Lin-Chen/ShareGPT4V",
        write_sharegpt4v,
        files="sharegpt4v_instruct_gpt4-vision_cap100k.json",
        shape="as LLaVA-Instruct-150K, pictures of several sets",
        kind="llava",
        images="a folder that holds coco/ llava/ sam/ share_textvqa/ web-celebrity/ web-landmark/ wikiart/",
        licence="cc-by-nc-4.0",
        known="tree pages of the repository, and of copies with the pictures: files, licence, folders",
        guessed="keys, and folders below those of the pictures",
    ),
    Dataset(
        "lmms-lab/LLaVA-OneVision-Mid-Data",
        write_mid,
        files="SET/SET_processed.json, SET/SET_images_N.tar.gz",
        shape="array of id, conversations, data_source, image: path in an archive",
        kind="llava",
        images="for one set the folder that its archives were unpacked to",
        licence="apache-2.0",
        known="the tree pages of the repository; LLaVA-NeXT's upload script: keys and archives",
        guessed="folders in the archives, prompts. Archives here are not compressed",
        subsets=MID_SUBSETS,
    ),
    Dataset(
        "lmms-lab/M4-Instruct-Data",
        write_m4,
        files="m4_instruct_annotations.json, archives by set",
        shape="array of sample_id, image: list of paths, conversations, metadata of dataset and split",
        kind="llava",
        images="the folder that the archives were unpacked to",
        licence="cc-by-4.0",
        known="tree page of the repository: files, licence; loaders of others: keys, lists of paths, swapped roles",
        guessed="folders in the archives, other keys of metadata; an empty answer",
    ),
)
