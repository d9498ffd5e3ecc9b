"""Data that change or are damaged, kept stages that are damaged, full and read-only disks."""

from __future__ import annotations

import os
import shutil
import subprocess

import audit_data
import pytest
from audit_data import activations, contents, make_store, plan

from qixai_fast import StoreError
from qixai_fast.auditing import run as run_module
from qixai_fast.auditing import runner as runner_module
from qixai_fast.auditing.files import AuditFiles
from qixai_fast.auditing.run import audit
from qixai_fast.auditing.unchanged import StoreWatch
from qixai_fast.store import ActivationStore, LayerSpec, create_store, open_store


@pytest.fixture(autouse=True)
def short_reports(monkeypatch):
    audit_data.simplify(monkeypatch.setattr)


@pytest.fixture
def store(tmp_path):
    make_store(tmp_path / "store")
    return tmp_path / "store"


def run(store, out, **changes):
    return audit(store, out, plan=plan(**changes), progress=False)


def flip(path, place=-100):
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    with open(path, "r+b") as file:  # in place, as a failing disk would
        file.write(data)


def reused(report):
    return {name for name, stage in report.timings["stages"].items() if stage["reused"]}


class TestBefore:
    def test_a_flipped_byte(self, store, tmp_path):
        flip(store / "dense.npy")
        with pytest.raises(StoreError, match=r"dense\.npy: chunk 0 .* differs from its checksum"):
            run(store, tmp_path / "out")
        assert not (tmp_path / "out" / "results.json").exists()

    def test_a_truncated_layer(self, store, tmp_path):
        opened = open_store(store)
        os.truncate(store / "dense.npy", 1000)
        for subject in (store, opened):
            with pytest.raises(StoreError, match=r"dense\.npy: .*(truncated|shorter)"):
                run(subject, tmp_path / "out")


class TestKeptStages:
    @pytest.mark.parametrize("suffix", ["npz", "json"])
    def test_every_byte_counts(self, store, tmp_path, suffix):
        first = run(store, tmp_path / "out", layers=["conv", "noise"])
        whole = contents(tmp_path / "out")
        path = tmp_path / "out" / ".stages" / f"relation_00_conv_02_noise.{suffix}"
        kept = path.read_bytes()
        assert reused(run(store, tmp_path / "out", layers=["conv", "noise"])) == set(first.timings["stages"])
        damages = [kept[: len(kept) // 2], b"", b"[]", b"null"]
        places = range(0, len(kept), len(kept) // 5)
        damages += [kept[:place] + bytes([kept[place] ^ 1]) + kept[place + 1 :] for place in places]
        for damaged in damages:
            path.write_bytes(damaged)
            again = run(store, tmp_path / "out", layers=["conv", "noise"])
            assert path.stem not in reused(again)
            assert contents(tmp_path / "out") == whole

    def test_damaged_between_reading_and_publishing(self, store, tmp_path, monkeypatch):
        def damaging(results, arrays, out, *, progress):
            flip(tmp_path / "out" / ".stages" / "layer_00_conv.npz")
            return audit_data.short_report(results, arrays, out, progress=progress)

        with monkeypatch.context() as patched:
            patched.setattr("qixai_fast.auditing.report.writer.write_report", damaging)
            with pytest.raises(StoreError, match=r"layer_00_conv\.npz: was changed while the audit ran"):
                run(store, tmp_path / "out")
        assert not (tmp_path / "out" / "results.json").exists()
        assert "layer_00_conv" not in reused(run(store, tmp_path / "out"))


def changes_in_place(store):
    flip(store / "dense.npy")


def truncates(store):
    os.truncate(store / "dense.npy", 1000)


def replaces(store):
    shutil.copy(store / "dense.npy", store / "other")
    flip(store / "other")
    os.replace(store / "other", store / "dense.npy")


def removes(store):
    (store / "dense.npy").unlink()


class TestWhileItRuns:
    """A layer's file changes while the first label stage is at work."""

    def change_after(self, monkeypatch, act):
        whole = run_module.label_stage
        seen = []

        def changing(context, layer, rng):
            result = whole(context, layer, rng)
            if not seen:
                act()
            seen.append(layer)
            return result

        monkeypatch.setattr(run_module, "label_stage", changing)

    @pytest.mark.parametrize(
        ("act", "words"),
        [
            (changes_in_place, "written to"),
            (truncates, "cut short"),
            (replaces, "replaced"),
            (removes, "cannot be found any more"),
        ],
    )
    def test_the_stage_at_work_is_not_kept(self, store, tmp_path, monkeypatch, act, words):
        whole = run(store, tmp_path / "whole")
        good = (store / "dense.npy").read_bytes()
        with monkeypatch.context() as patched:
            self.change_after(patched, lambda: act(store))
            with pytest.raises(StoreError, match=rf"dense\.npy.*{words}"):
                run(store, tmp_path / "out")
        assert not (tmp_path / "out" / "results.json").exists()
        assert not (tmp_path / "out" / ".stages" / "labels_00_conv.json").exists()
        assert (tmp_path / "out" / ".stages" / "layer_00_conv.json").exists()
        with pytest.raises(StoreError, match=r"dense\.npy"):
            run(store, tmp_path / "out")
        (store / "dense.npy").write_bytes(good)
        mended = run(store, tmp_path / "out")
        assert {"layer_00_conv", "ksg"} <= reused(mended)
        assert "labels_00_conv" not in reused(mended)
        assert mended.results == whole.results
        assert contents(tmp_path / "out") == contents(tmp_path / "whole")

    def test_a_copy_by_columns_is_watched(self, store, tmp_path, monkeypatch):
        """While it is used; one that was deleted or replaced is not the one that is used."""
        monkeypatch.setattr("qixai_fast.auditing.context.COPIED_BYTES", 0)
        whole = run(store, tmp_path / "whole")
        (copy,) = (store / "columns").glob("conv.*.npy")
        good = copy.read_bytes()
        with monkeypatch.context() as patched:
            self.change_after(patched, lambda: flip(copy))
            with pytest.raises(StoreError, match=r"columns/conv\..*written to.* checksum; delete it"):
                run(store, tmp_path / "out")
        assert not (tmp_path / "out" / ".stages" / "labels_00_conv.json").exists()

        def replace():
            (store / "other").write_bytes(good[:2000])
            os.replace(store / "other", copy)

        for act in (copy.unlink, replace, copy.touch):
            copy.write_bytes(good)
            shutil.rmtree(tmp_path / "out", ignore_errors=True)
            with monkeypatch.context() as patched:
                self.change_after(patched, act)
                assert run(store, tmp_path / "out").results == whole.results

    def test_an_append_and_a_touch_change_nothing(self, store, tmp_path, monkeypatch):
        whole = run(store, tmp_path / "whole")
        layers, labels = activations()
        specs = {name: LayerSpec(shape=data.shape[1:]) for name, data in layers.items()}
        metadata = {"class_names": audit_data.CLASSES}

        def append():
            with create_store(store, layers=specs, labels=True, metadata=metadata, resume=True) as writer:
                writer.append(layers, labels=labels)
            os.utime(store / "conv.npy")

        self.change_after(monkeypatch, append)
        opened = open_store(store)
        assert run(opened, tmp_path / "out").results == whole.results
        assert open_store(store).n_samples == 2 * opened.n_samples

    def test_a_watch_reads_nothing_where_nothing_changed(self, store, monkeypatch):
        opened = open_store(store)
        watch = StoreWatch(opened)
        monkeypatch.setattr(type(opened), "verify", lambda self: pytest.fail("read all data"))
        watch.check()


class TestKeys:
    def test_the_checksum_of_a_stage_is_of_what_it_reads(self, store, tmp_path):
        layers, labels = activations()
        layers["dense"] = layers["dense"][::-1].copy()
        specs = {name: LayerSpec(shape=data.shape[1:]) for name, data in layers.items()}
        with create_store(tmp_path / "other", layers=specs, labels=True) as writer:
            writer.append(layers, labels=labels)
        run(store, tmp_path / "out")
        again = run(tmp_path / "other", tmp_path / "out")
        read_back = reused(again)
        assert {"layer_00_conv", "relation_00_conv_02_noise", "labels_02_noise"} <= read_back
        assert not [name for name in read_back if "dense" in name or name == "ksg"]
        run(tmp_path / "other", tmp_path / "fresh")
        assert contents(tmp_path / "out") == contents(tmp_path / "fresh")

    def test_memory_and_threads_share_keys(self, store, tmp_path):
        run(store, tmp_path / "out")
        again = run(store, tmp_path / "out", n_jobs=1, max_memory="90MB")
        assert reused(again) == set(again.timings["stages"])

    @pytest.mark.parametrize("part", ["_version", "_processor", "_blas"])
    def test_libraries_and_processor_decide_bits(self, monkeypatch, part):
        monkeypatch.undo()  # the real digest
        digest = runner_module.code_digest.__wrapped__
        before = digest()
        assert before == digest()
        other = {"_version": lambda name: "9", "_processor": lambda: ("z80", ""), "_blas": lambda: ["mkl"]}
        monkeypatch.setattr(runner_module, part, other[part])
        assert digest() != before
        assert runner_module._NO_NUMBERS


@pytest.fixture
def mount(tmp_path):
    """Mounts a small file system; options for it can be given again."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mounted(options):
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        if os.name != "posix" or subprocess.run(command, check=False, capture_output=True).returncode:
            pytest.skip("this user may not mount a file system")
        return folder

    yield mounted
    subprocess.run(["umount", "-l", str(folder)], check=False, capture_output=True)


class TestOut:
    @pytest.mark.parametrize("kilobytes", [8, 40, 80, 92, 100])
    def test_a_full_disk(self, store, tmp_path, mount, kilobytes):
        """Room for more and more: stages, the report, publishing."""
        disk = mount("size=2m")
        (disk / "ballast").write_bytes(b"\0" * (2 * 2**20 - 1024 * kilobytes))
        with pytest.raises(OSError, match="No space left on device") as caught:
            run(store, disk / "out")
        assert str(caught.value.filename).startswith(str(disk / "out"))
        assert not (disk / "out" / "results.json").exists()
        kept = {path.stem for path in (disk / "out").glob(".stages/*_*.json")}
        (disk / "ballast").unlink()
        resumed = run(store, disk / "out")
        stages = {name for name in kept if not name.startswith("moments_")}
        assert stages <= reused(resumed) | {"ksg"}
        run(store, tmp_path / "whole")
        assert contents(disk / "out") == contents(tmp_path / "whole")

    def test_a_report_without_room_names_its_place(self, store, tmp_path, monkeypatch):
        def full(*args, **kwargs):
            raise OSError(28, "No space left on device")  # as libraries that write figures raise it

        monkeypatch.setattr("qixai_fast.auditing.report.writer.write_report", full)
        with pytest.raises(OSError, match=r"report cannot be written: No space left .*out/\.stages/new"):
            run(store, tmp_path / "out")

    def test_read_only(self, store, mount, monkeypatch):
        """Said before any data are read, as where another audit is at work there."""
        disk = mount("ro")
        monkeypatch.setattr(ActivationStore, "verify", lambda *args, **kwargs: pytest.fail("read all data"))
        with pytest.raises(OSError, match="Read-only file system") as caught:
            run(store, disk / "out")
        assert str(caught.value.filename).startswith(str(disk / "out"))

    def test_in_use(self, store, tmp_path, monkeypatch):
        monkeypatch.setattr(ActivationStore, "verify", lambda *args, **kwargs: pytest.fail("read all data"))
        with (
            AuditFiles(tmp_path / "out").locked(),
            pytest.raises(ValueError, match="another audit is writing"),
        ):
            run(store, tmp_path / "out")

    def test_removed_while_it_runs(self, store, tmp_path, monkeypatch):
        TestWhileItRuns().change_after(monkeypatch, lambda: shutil.rmtree(tmp_path / "out"))
        with pytest.raises(OSError, match="No such file") as caught:
            run(store, tmp_path / "out")
        assert str(caught.value.filename).startswith(str(tmp_path / "out"))
        monkeypatch.undo()
        audit_data.simplify(monkeypatch.setattr)
        assert run(store, tmp_path / "out").results
