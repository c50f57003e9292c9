"""The site of kfcn-serve: its files and their names, as they are served and as a folder."""

import hashlib
import json
import shutil

import pytest
from kfcn_mobile.outputs import OutputError
from kfcn_mobile.serve import main
from kfcn_mobile.site import PAGE, make_site, read_net, write_site
from shipping import CLASSES, PALETTE, SIZE, rewrite


def test_the_page_has_no_script_or_style_that_its_policy_refuses():
    text = (PAGE / "index.html").read_text("utf-8")
    assert text.count("<script") == 1 and '<script type="module" src="app.js"></script>' in text
    assert "<style" not in text and " style=" not in text and " on" + "click" not in text


def test_the_nets_are_described(ask, bundle):
    (net,) = json.loads(ask("/nets.json")[1])["nets"]
    assert net["name"] == "my net" and net["size"] == list(SIZE)
    assert net["classes"] == CLASSES and net["palette"] == PALETTE
    assert [model["mode"] for model in net["models"]] == ["float32", "int8"]
    for model in net["models"]:
        content = (bundle / f"{model['mode']}.tflite").read_bytes()
        assert ask(f"/{model['file']}")[1] == content
    assert ask(f"/{net['examples'][0]}")[1] == (bundle / "golden/0000_image.png").read_bytes()


def test_another_file_has_another_address(litert, bundle, tmp_path):
    """A browser that has the file of a net of this name is not to run it under these classes."""
    other = tmp_path / "other" / bundle.name
    shutil.copytree(bundle, other)
    content = (other / "float32.tflite").read_bytes()
    rewrite(other, "int8.tflite", content)
    files = []
    for folder in (bundle, other):
        site = make_site([read_net(folder)], print)
        (net,) = json.loads(site["nets.json"])["nets"]
        files.append({model["mode"]: model["file"] for model in net["models"]})
        assert (
            hashlib.sha256(site[files[-1]["int8"]].read_bytes()).hexdigest()[:12]
            in (files[-1]["int8"])
        )
    assert files[0]["int8"] != files[1]["int8"] and files[0]["float32"] == files[1]["float32"]


def test_nets_of_one_name_are_told_apart(litert, bundle, tmp_path):
    other = tmp_path / "other" / bundle.name
    shutil.copytree(bundle, other)
    site = make_site([read_net(bundle), read_net(other)], print)
    names = [net["name"] for net in json.loads(site["nets.json"])["nets"]]
    assert names == [f"{bundle.parent.name}/my net", "other/my net"]


def test_what_a_link_in_a_bundle_points_to_is_not_published(bundle, litert, capsys, tmp_path):
    (tmp_path / "private.tflite").write_bytes((bundle / "int8.tflite").read_bytes())
    (bundle / "int8.tflite").unlink()
    (bundle / "int8.tflite").symlink_to(tmp_path / "private.tflite")
    assert main([str(bundle), "--write", str(tmp_path / "out")]) == 2
    assert "int8.tflite: is a link that points outside the folder" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_site_as_plain_files(site, bundle, tmp_path):
    out = tmp_path / "out"
    write_site(site, out, [bundle])
    found = {p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()}
    assert found == set(site)
    (file,) = out.glob("nets/my-net/int8-*.tflite")
    assert file.read_bytes() == (bundle / "int8.tflite").read_bytes()
    assert not any(path.is_symlink() for path in out.rglob("*"))


def test_no_file_of_the_page_names_a_host():
    for file in PAGE.iterdir():
        text = file.read_text("utf-8").replace("http://www.w3.org/2000/svg", "")
        assert "http:" not in text and "https:" not in text and "//cdn" not in text, file.name


def content(folder):
    return {p: p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_the_site_is_a_new_folder_outside_of_what_it_is_made_of(tmp_path, site, bundle, capsys):
    (tmp_path / "link").symlink_to(bundle)
    before = content(tmp_path)
    for place in (bundle / "site", bundle / "a" / "b", tmp_path / "link" / "site"):
        with pytest.raises(OutputError, match="whose files the site is made of"):
            write_site(site, place, [bundle])
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    for place in (bundle, tmp_path / "litert", tmp_path / "gone"):
        with pytest.raises(OutputError, match="exists already"):
            write_site(site, place, [bundle])
        assert main([str(bundle), "--write", str(place)]) == 2
        assert "exists already" in capsys.readouterr().err
    assert content(tmp_path) == before
    write_site(site, tmp_path / "new" / "site", [bundle])
    assert (tmp_path / "new" / "site" / "nets.json").is_file()
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["site"]
