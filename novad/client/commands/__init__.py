"""The table of verbs. The CLI, the shell, completion, help and the reference all read it.

A row costs nothing until its verb is used: actions are named as `module:function` and imported then. The rows are
written down by section, in the order in which `novad help` shows them.
"""

from __future__ import annotations

from novad.client.commands.control import CONTROL_VERBS
from novad.client.commands.daily import DAILY_VERBS
from novad.client.commands.project import LOOK_VERBS, PROJECT_VERBS
from novad.client.commands.testing import TEST_VERBS
from novad.client.grammar import Verb

VERBS: tuple[Verb, ...] = (*DAILY_VERBS, *CONTROL_VERBS, *LOOK_VERBS, *TEST_VERBS, *PROJECT_VERBS)
