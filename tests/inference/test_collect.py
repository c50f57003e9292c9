"""Files, folders, patterns and lists, as people write them."""

import unicodedata

import pytest
from drawn import picture, save, write

from kfcn.errors import DataError, UsageError
from kfcn.inference.collect import collect, left_out
from kfcn.outputs import Outputs


@pytest.fixture
def folder(tmp_path, monkeypatch):
    for name in ("a.jfif", "b.JPG", "c.jp2", "d.tga", "._b.jpg", "deep/e.png", ".hidden/f.png"):
        save(tmp_path / "in" / name, picture(), format="PNG")
    write(tmp_path / "in/notes.pdf", "")
    write(tmp_path / "in/empty/notes.txt", "")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "in"


def test_a_folder_gives_pictures_of_every_kind_and_says_what_it_does_not(folder):
    assert [path.name for path in collect([folder])] == ["a.jfif", "b.JPG", "c.jp2", "d.tga"]
    assert left_out([folder, folder / "b.JPG", "in/*.jfif"]) == [
        f"{folder}: left out 1 file of another kind: notes.pdf",
        f"{folder}: left out 1 folder with images, to be named themselves: deep",
    ]
    assert left_out([folder / "deep"]) == []
    for path in folder.iterdir():
        if path.is_file() and not path.name.startswith("."):
            path.unlink()
    with pytest.raises(UsageError, match="no images, but folders: deep; name them; expected"):
        collect([folder])


def test_a_picture_that_is_named_twice_is_one(folder):
    named = collect(["in/*.J*", "in/c.jp2", folder.name, "in/b.JPG"])
    assert [path.name for path in named] == ["b.JPG", "c.jp2", "a.jfif", "d.tga"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_a_list_is_read_as_it_is_meant(folder, encoding):
    name = unicodedata.normalize("NFD", "Straße Müll.png")
    save(folder / unicodedata.normalize("NFD", "Tür") / name, picture())
    lines = [
        "# pictures of Monday", '"in/a.jfif"', "", "  ", "in\\b.JPG", "../in/c.jp2",
        unicodedata.normalize("NFC", "in/Tür/Straße Müll.png"), "in/d.TGA", "in/gone.png",
    ]  # fmt: skip
    file = write(folder.parent / "lists/list.txt", "\r\n".join(lines) + "\r\n", encoding)
    found = collect([file])
    assert [path.name for path in found] == ["a.jfif", "b.JPG", "c.jp2", name, "d.tga", "gone.png"]
    assert [path.is_file() for path in found] == [True] * 5 + [False]
    write(folder / "#1.txt", "")
    assert [p.name for p in collect([write(folder / "list.txt", "#1.txt\na.jfif\n")])] == [
        "#1.txt", "a.jfif",
    ]  # fmt: skip


@pytest.mark.parametrize("encoding, said", [("utf-16", "UTF-16"), ("latin-1", "Latin-1")])
def test_a_list_in_another_encoding_is_told_by_its_name(folder, encoding, said):
    file = write(folder / "list.txt", "Größe.jpg\n", encoding)
    with pytest.raises(DataError, match=f"list.txt: is stored as {said}.*; expected UTF-8"):
        collect([file])


def test_two_pictures_of_one_name_are_refused_in_any_form(tmp_path):
    names = [unicodedata.normalize(form, "Müll") for form in ("NFC", "NFD")]
    paths = [save(tmp_path / f"{i}/{name}.png", picture()) for i, name in enumerate(names)]
    with pytest.raises(UsageError, match=r"would both be written to Müll\.png"):
        collect(paths)


def test_a_pattern_takes_nothing_hidden_and_no_folders(tmp_path):
    for name in ("a.png", "._a.png", "deep/b.png", ".thumbs/z.png", "c.png/d.png"):
        save(tmp_path / name, picture())
    assert collect([tmp_path / "*.png"]) == [tmp_path / "a.png"]
    names = [str(path.relative_to(tmp_path)) for path in collect([str(tmp_path / "**/*.png")])]
    assert names == ["a.png", "c.png/d.png", "deep/b.png"]
    assert collect([tmp_path / ".thumbs/*.png"]) == [tmp_path / ".thumbs/z.png"]


def test_results_that_the_shell_names_are_no_photographs(folder):
    """`kfcn-predict NET in/*.jpg --out in`, done again, names the overlays of the first time."""
    outputs = Outputs(folder)
    for name in ("b.png", "b_overlay.jpg"):
        with outputs.aside(folder / name) as temporary:
            save(temporary, picture(), format="PNG")
    photo, labels, overlay = folder / "b.JPG", folder / "b.png", folder / "b_overlay.jpg"
    listed = write(folder / "list.txt", "b.JPG\nb_overlay.jpg\n")
    for named in ([overlay, photo, labels], ["in/b*"], [listed]):
        assert [path.name for path in collect(named)] == ["b.JPG"]
    note = "in: left out 2 label maps and overlays that kfcn has written"
    assert left_out(["in/b.JPG", "in/b.png", "in/b_overlay.jpg"]) == left_out(["in/b*"]) == [note]
    with pytest.raises(UsageError, match=r"b\.png, .*b_overlay\.jpg: expected photographs"):
        collect([labels, overlay])
    # Another picture under that name is a picture, for who names it; to a pattern it is a result
    # that was corrected, as it is in a folder.
    save(overlay, picture(3), format="PNG")
    assert collect([overlay]) == [overlay]
    assert [path.name for path in collect(["in/b*"])] == ["b.JPG"]
    assert left_out(["in/b*"]) == [note]
