"""Spec files: what is written reads back as the same spec; what is wrong is said in one sentence."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bneck.specs.network import NetSpec
from bneck.specs.rows import Bneck, Conv, Pool, SpecError
from bneck.specs.text import from_text, load, resolve, to_text
from bneck.specs.transforms import rename
from bneck.specs.zoo import V3_LARGE, V3_SMALL, network
from drawn import specs

TINY = NetSpec(
    name="tiny",
    resolution=32,
    classes=10,
    rows=(
        Conv(3, 8, "hswish", 2),
        Bneck(3, 16, 8, 0, "relu"),
        Bneck(5, 120, 24, 32, "hswish", 2),
        Pool(),
        Conv(1, 64, "hswish", bn=False),
    ),
)
TEXT = """\
bneck: 1
name: tiny
resolution: 32
channels: 3
classes: 10
padding: symmetric
se_gate: hsigmoid
bn_eps: 0.001
bn_momentum: 0.01
dropout: 0.2
rows:
- {op: conv, kernel: 3, out: 8,  act: hswish, stride: 2, bn: true}
- {op: bneck, kernel: 3, expanded: 16,  out: 8,  se: 0,  act: relu,   stride: 1}
- {op: bneck, kernel: 5, expanded: 120, out: 24, se: 32, act: hswish, stride: 2}
- {op: pool}
- {op: conv, kernel: 1, out: 64, act: hswish, stride: 1, bn: false}
"""


class TestRoundTrip:
    def test_a_spec_reads_like_the_papers_table(self) -> None:
        assert to_text(TINY) == TEXT
        assert from_text(TEXT) == TINY

    @settings(max_examples=200, deadline=None)
    @given(specs())
    @example(replace(TINY, bn_eps=1e-05, bn_momentum=5e-324, dropout=1e-300))
    @example(replace(TINY, dropout=0.9999999999999999, bn_momentum=1.0))
    def test_what_is_written_reads_back_exactly(self, spec: NetSpec) -> None:
        again = from_text(to_text(spec))
        assert again == spec
        assert again.digest() == spec.digest()

    @pytest.mark.parametrize(
        "name",
        [
            "no", "yes", "null", "~", "1", "0x10", "1e5", "1e-05", "-2.E+3", "3.14", ".inf", "12:30:45",
            "2001-12-14", "2001-99-99", "a: b", "- a", "? a", "# not a comment", "a # b", "{op: pool}", "[1]",
            "*a", "&a", "!!int 1", "'", '"', "\\n", "%", "@x", "`x`", " padded ", "two\nlines",
            "tab\t", "cr\r\n", "---", "...", "ünïcode", "模型", "🙂", "a\u2028b", "a\xa0b", "\x00\x1b",
            "\ufeffbom", "x" * 300, "a " * 100,
        ],
    )  # fmt: skip
    def test_any_name_survives(self, name: str) -> None:
        spec = rename(TINY, name)
        text = to_text(spec)
        assert from_text(text) == spec
        assert len(text.split("\n")) == len(TEXT.split("\n"))  # the name stays on its line

    @settings(deadline=None)
    @given(specs())
    def test_every_row_is_one_line(self, spec: NetSpec) -> None:
        header, _, rows = to_text(spec).partition("\nrows:\n")
        assert header.startswith("bneck: 1\nname: ")
        assert len(rows.rstrip("\n").split("\n")) == len(spec.rows)

    def test_a_file_holds_the_same_spec(self, tmp_path: Path) -> None:
        spec = rename(TINY, "ünïcode 模型")
        (tmp_path / "a.yaml").write_text(to_text(spec), encoding="utf-8")
        assert load(tmp_path / "a.yaml") == spec

    def test_columns_that_hold_only_defaults_are_left_out(self) -> None:
        text = to_text(V3_LARGE)
        assert "dilation" not in text
        assert "skip" not in text
        dilated = (*TINY.rows[:2], Bneck(5, 120, 24, 32, "hswish", 2, dilation=2), *TINY.rows[3:])
        text = to_text(replace(TINY, rows=dilated))
        assert [line.count("dilation") for line in text.split("rows:\n")[1].splitlines()] == [
            0,
            1,
            1,
            0,
            0,
        ]

    def test_a_person_may_leave_out_what_has_a_default(self) -> None:
        short = "bneck: 1\nname: small\nrows:\n- {op: conv, kernel: 3, out: 8, act: relu}\n- {op: pool}\n"
        assert from_text(short) == NetSpec(name="small", rows=(Conv(3, 8, "relu"), Pool()))

    @pytest.mark.parametrize("written", ["1e-3", "1E-3", "1.e-3", "0.1e-2", "1.0e-3", "0.001"])
    def test_a_person_may_write_a_small_number_in_any_way(self, written: str) -> None:
        assert from_text(TEXT.replace("bn_eps: 0.001", f"bn_eps: {written}")) == TINY

    @pytest.mark.parametrize(
        ("written", "adds"), [("yes", True), ("'yes'", True), ("no", False), ("auto", True)]
    )
    def test_a_person_may_write_yes_and_no_bare(self, written: str, adds: bool) -> None:
        text = TEXT.replace("act: relu,   stride: 1", f"act: relu, stride: 1, skip: {written}")
        assert from_text(text).has_skip(1) is adds


BAD = {  # what is replaced in TEXT, by what, and what the message says
    "unknown key": (
        "expanded: 16, ", "expansion: 16, ",
        "row 1 (bneck) has an unknown key 'expansion'; known are op, kernel",
    ),
    "unknown header key": (
        "classes: 10", "labels: 10",
        "the spec has an unknown key 'labels'; known are name, resolution",
    ),
    "missing key": ("kernel: 5, ", "", "row 2 (bneck) lacks kernel"),
    "two missing keys": ("kernel: 3, expanded: 16, ", "", "row 1 (bneck) lacks expanded, kernel"),
    "no name": ("name: tiny\n", "", "the spec lacks name"),
    "negative width": (
        "expanded: 120", "expanded: -120",
        "row 2 (bneck): expanded is -120; it must be a whole number",
    ),
    "kernel as text": ("kernel: 5", "kernel: '5'", "row 2 (bneck): kernel is '5'; it must be a whole number"),
    "width of a half": ("out: 24", "out: 24.5", "row 2 (bneck): out is 24.5; it must be a whole number"),
    "width a list": ("out: 24", "out: [24]", "row 2 (bneck): out is [24]; it must be a whole number"),
    "even kernel": ("kernel: 5", "kernel: 4", "row 2 (bneck): kernel is 4; it must be odd"),
    "unknown act": (
        "act: relu,", "act: gelu,",
        "row 1 (bneck): act is 'gelu'; allowed are linear, relu, relu6, hswish",
    ),
    "bn 1": ("bn: false", "bn: 1", "row 4 (conv): bn is 1; it must be true or false"),
    "bn as text": ("bn: false", "bn: 'false'", "row 4 (conv): bn is 'false'; it must be true or false"),
    "skip a number": (
        "relu,   stride: 1", "relu, stride: 1, skip: 1",
        "row 1 (bneck): skip is 1; allowed are auto, yes, no",
    ),
    "impossible residual": (
        "stride: 2}\n- {op: pool}", "stride: 2, skip: yes}\n- {op: pool}",
        "row 2 asks for a residual that cannot add up: stride 2, 8 channels in and 24 out",
    ),
    "unknown op": (
        "op: pool", "op: flatten",
        "row 3: op is 'flatten'; allowed are conv, bneck, pool",
    ),
    "op a list": ("op: pool", "op: [pool]", "row 3 is {'op': ['pool']}; it must be {op: ...}"),
    "op a map": ("op: pool", "op: {a: 1}", "row 3 is {'op': {'a': 1}}; it must be {op: ...}"),
    "no op": ("op: pool", "", "row 3 is {}; it must be {op: ...}"),
    "a row of text": ("- {op: pool}", "- pool", "row 3 is 'pool'; it must be {op: ...}"),
    "an empty row": ("- {op: pool}", "-", "row 3 is None; it must be {op: ...}"),
    "a pool with a width": (
        "{op: pool}", "{op: pool, out: 24}",
        "row 3 (pool) has an unknown key 'out'; known are op",
    ),
    "no pool": ("- {op: pool}\n", "", "there are 0 pool rows; a network has exactly one"),
    "rows a map": (
        TEXT.partition("rows:")[2], " {}\n",
        "the spec has no rows; write one '- {op: ..., ...}' a row",
    ),
    "rows empty": (TEXT.partition("rows:")[2], "\n", "the spec has no rows"),
    "rows gone": ("rows:" + TEXT.partition("rows:")[2], "", "the spec has no rows"),
    "rows a number": (TEXT.partition("rows:")[2], " 3\n", "the spec has no rows"),
    "name a number": ("name: tiny", "name: 5", "name is 5; it must be text (in a spec file: in quotes)"),
    "name a truth value": (
        "name: tiny", "name: no",
        "name is False; it must be text (in a spec file: in quotes)",
    ),
    "name empty": ("name: tiny", "name:", "name is None; it must be text"),
    "eps as text": ("bn_eps: 0.001", "bn_eps: '0.001'", "bn_eps is '0.001'; it must be a number above 0"),
    "eps infinite": (
        "bn_eps: 0.001", "bn_eps: .inf",
        "bn_eps is inf; it must be a number above 0 and at most 1",
    ),
    "dropout true": ("dropout: 0.2", "dropout: true", "dropout is True; it must be a number from 0 to below 1"),
    "padding unknown": ("symmetric", "valid", "padding is 'valid'; allowed are symmetric, same"),
    "resolution as text": (
        "resolution: 32", "resolution: 32px",
        "resolution is '32px'; it must be a whole number",
    ),
    "another format": ("bneck: 1", "bneck: 2", "the spec has format 2; this version reads 'bneck: 1'"),
    "format as text": ("bneck: 1", "bneck: new", "the spec has format 'new'; this version reads 'bneck: 1'"),
    "no format": ("bneck: 1\n", "", "the text is not a spec; a spec begins with 'bneck: 1'"),
    "not yaml": ("- {op: pool}", "- {op: pool", "the text is not yaml near line 16"),
    "a tab": ("name: tiny", "name:\n\ttiny", "the text is not yaml near line 3"),
    "a date that cannot be": ("tiny", "2001-99-99", "the text is not yaml; a spec begins with 'bneck: 1'"),
    "a tag that cannot be": ("tiny", "!!timestamp x", "the text is not yaml; a spec begins with 'bneck: 1'"),
    "a python object": ("tiny", "!!python/object/apply:os.getcwd []", "the text is not yaml near line 2"),
    "a list": (TEXT, "- 1\n- 2\n", "the text is not a spec; a spec begins with 'bneck: 1'"),
    "a word": (TEXT, "v3-small", "the text is not a spec"),
    "nothing": (TEXT, "", "the text is not a spec"),
    "a nest": (TEXT, "[" * 100_000, "the text is not yaml"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_a_bad_text_is_refused_in_one_sentence(case: str) -> None:
    old, new, message = BAD[case]
    assert TEXT.count(old) == 1
    with pytest.raises(SpecError) as caught:
        from_text(TEXT.replace(old, new))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@settings(deadline=None)
@given(st.integers(0, len(TEXT)), st.integers(0, 12), st.text(max_size=6))
@example(0, len(TEXT), "\x00")
def test_a_damaged_text_is_a_spec_or_refused(start: int, length: int, put: str) -> None:
    try:
        spec = from_text(TEXT[:start] + put + TEXT[start + length :])
    except SpecError:
        return
    assert from_text(to_text(spec)) == spec


class TestResolve:
    def test_a_name_a_file_a_folder_and_a_spec_are_networks(self, tmp_path: Path) -> None:
        (tmp_path / "spec.yaml").write_text(TEXT, encoding="utf-8")
        assert resolve("v3-small@96") == network("v3-small@96")
        assert resolve(str(tmp_path / "spec.yaml")) == TINY
        assert resolve(tmp_path / "spec.yaml") == TINY
        assert resolve(tmp_path) == TINY
        assert resolve(str(tmp_path)) == TINY
        assert resolve(TINY) is TINY

    def test_a_file_comes_before_a_name(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "v3-small").write_text(TEXT, encoding="utf-8")
        assert resolve("v3-small") == V3_SMALL
        monkeypatch.chdir(tmp_path)
        assert resolve("v3-small") == TINY

    def test_a_missing_file_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(
            SpecError, match=r"absent\.yaml cannot be read: No such file or directory"
        ):
            resolve(str(tmp_path / "absent.yaml"))

    def test_a_file_that_is_no_text_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "a.yaml").write_bytes(b"\xff\xfe\x00")
        with pytest.raises(SpecError, match=r"a\.yaml cannot be read: it is not utf-8 text"):
            load(tmp_path / "a.yaml")

    def test_an_error_inside_a_file_names_file_and_row(self, tmp_path: Path) -> None:
        (tmp_path / "a.yaml").write_text(TEXT.replace("out: 24", "out: 0"), encoding="utf-8")
        with pytest.raises(SpecError, match=r"a\.yaml: row 2 \(bneck\): out is 0"):
            load(tmp_path / "a.yaml")

    def test_what_is_nothing_of_these_is_an_unknown_name(self) -> None:
        with pytest.raises(SpecError, match=r"there is no network .* (did you mean|known are)"):
            resolve("mine")

    def test_a_path_is_no_name(self, tmp_path: Path) -> None:
        with pytest.raises(
            SpecError, match=f"{tmp_path} has no spec.yaml; pass a run's folder, a spec"
        ):
            resolve(str(tmp_path))
        with pytest.raises(
            SpecError, match="runs/mine is no file or folder; pass a run's folder, a spec"
        ):
            resolve("runs/mine")

    def test_a_whole_text_given_as_a_name_is_an_unknown_name(self) -> None:
        with pytest.raises(SpecError, match="there is no network"):
            resolve(TEXT)
        with pytest.raises(SpecError, match="there is no network"):
            resolve("v3-small\0")
