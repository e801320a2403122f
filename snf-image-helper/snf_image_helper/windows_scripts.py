"""The scripts that run once inside Windows: what they are called, who calls them, how a word is quoted for them.

`Specialize.cmd` is run by the answer file in Setup's specialize pass, `Finish.cmd` by SetupComplete.cmd when Setup is
over; each calls the parts that tasks put into the folder of its name. `Finish.cmd` then overwrites what may hold a
secret, and removes everything of ours.
"""

from __future__ import annotations

from collections.abc import Sequence

from snf_image_helper.actions import Action, MakeFolder, WriteFile
from snf_image_helper.image import Files, RootPath
from snf_image_helper.windows import LOG, SCRIPTS, SETUP_SCRIPTS, windows_path

SPECIALIZE = SCRIPTS / "specialize"
FINISH = SCRIPTS / "finish"
SETUP_COMPLETE = SETUP_SCRIPTS / "SetupComplete.cmd"
RUN_SPECIALIZE = r"cmd.exe /c %WINDIR%\SnfScripts\Specialize.cmd"
#: SYSTEM and Administrators alone: that is what ntfs-3g makes of this mode.
PRIVATE = 0o700
_FINISH = r"%WINDIR%\SnfScripts\Finish.cmd"
_CALL_FINISH = f'if exist "{_FINISH}" call "{_FINISH}"\r\n'
#: What cmd.exe gives a meaning outside of quotes (and the quote itself).
_SPECIAL = frozenset('()!^"<>&|')


def script(*lines: str) -> bytes:
    return "".join(f"{line}\r\n" for line in ("@echo off", *lines)).encode("ascii")


def part(folder: RootPath, name: str, *lines: str) -> Action:
    """A script that Specialize.cmd or Finish.cmd calls; parts run in the order of their names."""
    return WriteFile(path=folder / f"{name}.cmd", content=script(*lines), mode=PRIVATE, owner=(0, 0))


def install(files: Files, answer_file: RootPath) -> Sequence[Action]:
    """The two callers and the folders of their parts, and a first line in the image's SetupComplete.cmd."""
    actions: list[Action] = [
        MakeFolder(path=SCRIPTS, mode=PRIVATE),
        MakeFolder(path=SPECIALIZE, mode=PRIVATE),
        MakeFolder(path=FINISH, mode=PRIVATE),
        WriteFile(path=SCRIPTS / "Specialize.cmd", content=_specialize(), mode=PRIVATE, owner=(0, 0)),
        WriteFile(path=SCRIPTS / "Finish.cmd", content=_finish(answer_file), mode=PRIVATE, owner=(0, 0)),
    ]
    if files.entry(SETUP_SCRIPTS.parent) is None:
        actions.append(MakeFolder(path=SETUP_SCRIPTS.parent))
    if files.entry(SETUP_SCRIPTS) is None:
        actions.append(MakeFolder(path=SETUP_SCRIPTS))
    old = files.read(SETUP_COMPLETE)
    call = _CALL_FINISH.encode("ascii")
    if old is None:
        actions.append(WriteFile(path=SETUP_COMPLETE, content=script() + call, mode=0o755, owner=(0, 0)))
    elif call not in old:
        # First, because nobody knows whether the image's own script comes to its last line.
        actions.append(WriteFile(path=SETUP_COMPLETE, content=call + old))
    return actions


def _specialize() -> bytes:
    return script(f'for %%f in ("%~dp0specialize\\*.cmd") do call "%%f" >> "{LOG}" 2>&1', "exit /b 0")


def _finish(answer_file: RootPath) -> bytes:
    """The last line ends the script before it removes its folder, so that cmd.exe need not read on in it."""
    answers = windows_path(answer_file)
    zero = 'fsutil file setzerodata offset=0 length=%%~zf "%%f" > nul'
    return script(
        f'for %%f in ("%~dp0finish\\*.cmd") do call "%%f" >> "{LOG}" 2>&1',
        f'for /r "%~dp0specialize" %%f in (*) do {zero}',
        f'for %%f in ("{answers}") do {zero}',
        f'del /f /q "{answers}"',
        '(goto) 2> nul & rd /s /q "%~dp0"',
    )


def quoted(word: str) -> str:
    """A word as one argument of a program, on a line of a batch file.

    The program's own rules come first (quotes around it, a backslash before quotes inside). Then every character that
    cmd.exe knows gets a caret, quotes too, so that cmd.exe never believes to be within quotes; and % is doubled.
    Raises ValueError for what is not printable ASCII: its meaning would depend on the code page.
    """
    if not (word.isascii() and word.isprintable()):
        raise ValueError("only printable ASCII characters can be given to a program of Windows by a script")
    argument, backslashes = '"', 0
    for character in word:
        if character == "\\":
            backslashes += 1
            continue
        argument += "\\" * (backslashes * 2 + 1 if character == '"' else backslashes) + character
        backslashes = 0
    argument += "\\" * (backslashes * 2) + '"'
    return "".join("%%" if c == "%" else f"^{c}" if c in _SPECIAL else c for c in argument)
