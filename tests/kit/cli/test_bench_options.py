"""`edgekit bench` measures as `edgekit-runtime bench` does: its options are the device's, and a few more."""

from __future__ import annotations

from edgekit.cli.program import kit
from edgekit_runtime.cli import program as runtime_cli
from edgekit_runtime.cli.parser import Program

FRAME = {"help", "json", "debug"}


def test_the_devices_options_mean_the_same_here() -> None:
    device = runtime_cli.add_bench(Program("edgekit-runtime", "Try.", "1"), "edgekit-runtime", lambda _: None)
    theirs = {action.dest: action for action in device._actions if action.dest not in FRAME}
    program = kit()
    command = program.get_command(program.make_context("edgekit", [], resilient_parsing=True), "bench")
    ours = {param.name: param for param in command.params}
    assert set(theirs) - set(ours) == set()
    assert set(ours) - set(theirs) == {"plot", "target", "ssh", "as_json", "debug"}
    for name, action in theirs.items():
        assert ours[name].help == action.help
        assert (ours[name].default or None) == (action.default or None)
        assert not action.option_strings or action.option_strings == ours[name].opts
