"""The children of this novad: their deaths, their trees, their signals. The only reaper.

A death wakes the loop through the child's pidfd. novad is a subreaper (prctl(2)), so whatever a child leaves
behind becomes novad's own child: after a death the leftovers are found among our children, without a scan of
/proc.
A dead leader stays a zombie until its tree is gone, which keeps its pid, and with it the number of its group and
session, from being used again: a signal to that group cannot reach a stranger (I3).

An adopted child is somebody else's: its pid is guarded by its pidfd alone, its leftovers are found by a look at
the marks of all processes, one look for all that died within a few milliseconds, and its exit status is asked
of its pidfd.

A program that forks may name another of its processes as the service (MAINPID of sd_notify(3)): then that one's death
is the child's, and the leader that was spawned is a member of the tree like any other.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable

from novad.host import pidfd, proc, stacks
from novad.host.child import MARK, Child, Hooks
from novad.host.hub import Timer, Watcher

# Rounds of finding and killing in one go; a fork storm that outlives them is hit again at the next death in it.
KILL_ROUNDS = 50
# Adopted leaders that die are looked at together after this long, then ever more rarely until their status is known:
# it is once their new parent has reaped them, which a good init does at once and a bad one within seconds.
LOOK_S = 0.01
LOOK_GROWTH = 1.25
LOOKS = 20


class Children:
    """All children by pid."""

    def __init__(self, hooks: Hooks) -> None:
        self._hooks = hooks
        self._children: dict[int, Child] = {}
        self._mains: dict[int, Child] = {}
        self._helpers: set[int] = set()
        self._to_examine: list[Child] = []
        self._marked: dict[str | int, list[int]] | None = None
        self._pid = os.getpid()

    def add(self, name: str, incarnation: int, pid: int, mark: str) -> Child:
        """Watch a child that was just spawned."""
        child = Child(name, incarnation, pid, os.pidfd_open(pid), mark)
        self._children[pid] = child
        child.watcher = Watcher(child.pidfd, lambda: self._leader_died(child))
        return child

    def adopt(self, name: str, incarnation: int, pid: int, mark: str) -> Child:
        """Watch a child of an earlier novad. Raises `ProcessLookupError` when it is gone by now.

        After an exec of novad's own code it is our child still, and nothing is different.
        """
        child = self.add(name, incarnation, pid, mark)
        found = proc.stat(pid)
        child.is_adopted = found is None or found.parent != self._pid
        return child

    def adopt_leftovers(self, name: str, incarnation: int, pids: Iterable[int], mark: str) -> Child | None:
        """What a leader that died unseen left behind, to be ended; None when that is gone by now."""
        pid = -len(self._children) - 1
        child = Child(name, incarnation, pid, -1, mark, is_adopted=True, is_dead=True)
        child.ended_ticks = proc.now_ticks()
        self._children[pid] = child
        for member in pids:
            self._watch_member(child, member)
        if not child.members:
            del self._children[pid]
            return None
        return child

    def speaker(self, pid: int) -> Child | None:
        """The child whose leader `pid` is, or the process that the leader has named."""
        return self._children.get(pid) or self._mains.get(pid)

    def follow(self, child: Child, pid: int) -> str:
        """From now on `pid` is the service. Returns why not, or nothing."""
        if child.is_reported or pid not in {child.pid, *self.tree(child)}:
            return "no living process of this service"
        self._unfollow(child)
        if pid != child.pid:
            fd = os.pidfd_open(pid)
            child.main = pid, fd, Watcher(fd, lambda: self._main_died(child))
            self._mains[pid] = child
        return ""

    def _unfollow(self, child: Child) -> None:
        if child.main is not None:
            pid, fd, watcher = child.main
            watcher.close()
            os.close(fd)
            del self._mains[pid]
            child.main = None

    def ours(self, pid: int) -> bool:
        """Whether `pid` is a child that somebody here waits for."""
        return pid in self._children or pid in self._helpers

    def add_helper(self, pid: int) -> None:
        """A child that is no process of the cluster (a probe's command): its owner reaps it."""
        self._helpers.add(pid)

    def remove_helper(self, pid: int) -> None:
        self._helpers.discard(pid)

    # -- deaths

    def _leader_died(self, child: Child) -> None:
        assert child.watcher is not None
        child.watcher.close()
        self._hooks.before_death()
        child.is_dead = True
        child.ended_ticks = proc.now_ticks()
        if child.is_reported:
            self._look_again(child)
        elif child.main is None:
            self._ask(child)

    def _main_died(self, child: Child) -> None:
        """As with a leader, but for the number: its own may mean another process from now on."""
        assert child.main is not None
        _, fd, watcher = child.main
        watcher.close()
        child.ended_ticks = proc.now_ticks()
        if not child.is_adopted:
            try:
                result = os.waitid(os.P_PIDFD, fd, os.WEXITED)
            except ChildProcessError:
                # Its parent is the leader, or another process of the service: that one reaps it, or ends.
                pass
            else:
                assert result is not None
                return self._tell(child, result)
        self._ask(child)

    def _ask(self, child: Child) -> None:
        """How it ended is to be found out."""
        if child.is_adopted or child.main is not None:
            self._to_examine.append(child)
            if len(self._to_examine) == 1:
                Timer(LOOK_S, self._examine)
            return
        # WNOWAIT: the status is read, the zombie stays and keeps its pid taken.
        result = os.waitid(os.P_PIDFD, child.pidfd, os.WEXITED | os.WNOWAIT)
        assert result is not None
        self._tell(child, result)

    def _tell(self, child: Child, result: os.waitid_result) -> None:
        if result.si_code == os.CLD_EXITED:
            self._report(child, result.si_status, None)
        else:
            self._report(child, None, result.si_status)

    def _examine(self) -> None:
        """Adopted leaders that died: one look at all processes serves all of them."""
        children, self._to_examine = self._to_examine, []
        self._marked = None
        for child in children:
            child.looks += 1
            status = _exit_status(child) if child.told is None else child.told
            if status is None and child.looks < LOOKS and not child.is_leaving:
                # Its parent has not reaped it yet; before that nobody can say how it ended. In a stop nobody asks.
                self._to_examine.append(child)
            elif status is None:
                self._report(child, None, None)
            else:
                code = os.waitstatus_to_exitcode(status)
                self._report(child, *((code, None) if code >= 0 else (None, -code)))
        self._marked = None
        if self._to_examine:
            looks = min(child.looks for child in self._to_examine)
            Timer(LOOK_S * LOOK_GROWTH**looks, self._examine)

    def _report(self, child: Child, code: int | None, number: int | None) -> None:
        self._unfollow(child)
        child.is_reported = True
        leftovers = self._watch_members(child) or not child.is_dead
        if leftovers and child.is_killing:
            # Who had left the tree of an adopted leader could not be told from others while that lived.
            self.kill_tree(child)
        if not leftovers:
            self._bury(child)
        self._hooks.on_exit(child, code, number, leftovers)

    def _bury(self, child: Child) -> None:
        """Nothing is left of the tree: reap the leader and forget it."""
        if not child.is_adopted:
            os.waitid(os.P_PIDFD, child.pidfd, os.WEXITED)
        if child.pidfd >= 0:
            os.close(child.pidfd)
        self._children.pop(child.pid, None)

    def _watch_members(self, child: Child) -> bool:
        """Watch for the death of what is left of a dead leader's tree; False when nothing is."""
        for pid in self.tree(child):
            self._watch_member(child, pid)
        return bool(child.members)

    def _watch_member(self, child: Child, pid: int) -> None:
        if pid in child.members:
            return
        try:
            fd = os.pidfd_open(pid)
        except ProcessLookupError:
            return
        watcher = Watcher(fd, lambda: self._member_died(child, pid))
        child.members[pid] = (fd, watcher)

    def _member_died(self, child: Child, pid: int) -> None:
        fd, watcher = child.members.pop(pid)
        watcher.close()
        self._reap(fd)
        os.close(fd)
        # One look for all that die within a moment: a look costs as much as the tree is large.
        if not child.will_look:
            child.will_look = True
            Timer(LOOK_S if child.members else 0.0, lambda: self._look_again(child))

    def _look_again(self, child: Child) -> None:
        """After deaths in a dead leader's tree: is anything left of it?"""
        child.will_look = False
        if self._children.get(child.pid) is not child:
            return
        self._marked = None
        if child.is_killing:
            self.kill_tree(child)
        if child.is_dead and not child.members and not self._watch_members(child):
            self._bury(child)
            self._hooks.on_tree_gone(child)

    def _reap(self, fd: int) -> None:
        try:
            os.waitid(os.P_PIDFD, fd, os.WEXITED | os.WNOHANG)
        except ChildProcessError:
            # A descendant that still has a parent of its own.
            pass

    def reap_orphans(self) -> None:
        """Reap what became our child and died. To be called on SIGCHLD, which says no more than `look`."""
        for pid in proc.children(self._pid):
            if self.ours(pid) or pid in self._mains:
                continue
            found = proc.stat(pid)
            if found is not None and found.state in "ZX":
                try:
                    os.waitpid(pid, os.WNOHANG)
                except ChildProcessError:
                    pass

    # -- trees

    def orphans(self) -> list[int]:
        """Our living children that no leader is: what trees of ours have cast off."""
        return [pid for pid in proc.children(self._pid) if not self.ours(pid) and proc.is_alive(pid)]

    def tree(self, child: Child) -> list[int]:
        """The living members of the tree, without the leader."""
        found = set() if child.is_dead else set(proc.descendants(child.pid))
        for pid in self._candidates(child):
            if pid not in found and self._belongs(child, pid):
                found |= {pid, *proc.descendants(pid)}
        found |= {pid for pid, started in child.known.items() if proc.is_same(pid, started)}
        found -= {child.pid, self._pid, *self._children}
        return [pid for pid in found if proc.is_alive(pid)]

    def _candidates(self, child: Child) -> Iterable[int]:
        """Who may belong to the tree without descending from a living leader."""
        if not child.is_adopted:
            return self.orphans()
        if not child.is_dead:
            return ()
        if self._marked is None:
            self._marked = proc.by_tie(MARK)
        return {*self._marked.get(child.mark, ()), *self._marked.get(child.pid, ())}

    def _belongs(self, child: Child, pid: int) -> bool:
        if pid in self._children or pid == self._pid:
            return False
        if proc.mark(pid, MARK) == child.mark:
            return True
        found = proc.stat(pid)
        if found is None or child.pid not in (found.session, found.group):
            return False
        # A zombie leader keeps its number from being anybody else's; an adopted one may be forgotten by now.
        return not child.is_adopted or found.started <= child.ended_ticks

    def note_tree(self, child: Child) -> None:
        """Remember every descendant, before a signal makes some of them untraceable."""
        for pid in self.tree(child):
            found = proc.stat(pid)
            if found is not None:
                child.known[pid] = found.started

    # -- signals

    def signal(self, child: Child, number: int, group: bool = False) -> None:
        """Send a signal to the leader, or to its whole group. Who is gone gets none."""
        try:
            if group and not (child.is_adopted and child.is_dead):
                os.killpg(child.pid, number)
                return
        except (ProcessLookupError, PermissionError):
            # An adopted service may be no leader of a group.
            pass
        self._signal_one(child, number)

    def _signal_one(self, child: Child, number: int) -> None:
        fd = child.main[1] if child.main is not None else child.pidfd
        try:
            if child.main is not None or not child.is_dead:
                signal.pidfd_send_signal(fd, number)
        except (ProcessLookupError, PermissionError):
            pass

    def terminate(self, child: Child, number: int) -> None:
        """The stop signal to the group, then CONT, so that what is stopped can act on it.

        While the leader lives it speaks for what has left its group (a database's workers end by its order);
        what outlives it is signalled one by one.
        """
        child.is_leaving = True
        self.note_tree(child)
        for sent in (number, signal.SIGCONT):
            self.signal(child, sent, group=True)
            if child.main is not None and not child.is_dead and not _is_in_group(child.main[0], child.pid):
                self._signal_one(child, sent)
            if child.is_dead:
                self._send(self.tree(child), sent)

    def _send(self, pids: Iterable[int], number: int) -> None:
        for pid in pids:
            try:
                fd = os.pidfd_open(pid)
            except ProcessLookupError:
                continue
            try:
                signal.pidfd_send_signal(fd, number)
            except (ProcessLookupError, PermissionError):
                pass
            finally:
                os.close(fd)

    def kill_tree(self, child: Child) -> None:
        """KILL to the leader, the group, the session and every descendant that can be found.

        Repeats until a look finds nothing that is not dying, because a fork can race the look.
        """
        child.is_leaving = child.is_killing = True
        self.note_tree(child)
        killed: set[int] = set()
        for _ in range(KILL_ROUNDS):
            self._marked = None
            self.signal(child, signal.SIGKILL, group=True)
            fresh = [pid for pid in self.tree(child) if pid not in killed]
            if not fresh:
                break
            self._send(fresh, signal.SIGKILL)
            killed.update(fresh)
        if child.is_dead:
            self._watch_members(child)

    def show_stacks(self, child: Child) -> list[int]:
        """Ask the Python processes of the tree for their stacks; who was asked, by pid."""
        pids = [*([] if child.is_dead else [child.pid]), *self.tree(child)]
        able = [pid for pid in pids if stacks.can_show(pid)]
        self._send(able, stacks.SIGNAL)
        return able

    def survivors(self, child: Child) -> list[tuple[int, str, str]]:
        """Who of the tree is still there, as pid, command and what holds it; the leader first."""
        pids = [] if child.is_dead else [child.pid]
        return [(pid, proc.command(pid), proc.held_by(pid)) for pid in [*pids, *self.tree(child)]]


def _exit_status(child: Child) -> int | None:
    """The wait status of the process that is the service, once its parent has reaped it."""
    if child.main is not None:
        return pidfd.status_of_the_dead(child.main[1], child.main[0])
    return pidfd.status_of_the_dead(child.pidfd, child.pid)


def _is_in_group(pid: int, group: int) -> bool:
    found = proc.stat(pid)
    return found is not None and found.group == group
