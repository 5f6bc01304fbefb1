"""The scripts of a limiter by plan and by key, and looks at keys with the quotas that these have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ratelab.algorithms import Policy
from ratelab.algorithms.composite import check_policies
from ratelab.errors import InputError, StoreError
from ratelab.limiter import Decision, Keys
from ratelab.quota import NS_PER_US, Quota
from ratelab.stores.arguments import name_keys
from ratelab.stores.plans import Followers, Plans, QuotaChanges
from ratelab.stores.policy_groups import ALL
from ratelab.stores.valkey.composite_script import CompositeScript, create_script, encode_call, format_tag
from ratelab.stores.valkey.resp import encode_bulk
from ratelab.stores.valkey.script import RESET_COST, Script, escape_name
from ratelab.stores.valkey.session import Session, SlotMap, decide_hits


class ValueReader:
    """Encode the reading of keys as commands that run a script. It is used like a `Script`.

    A script needs no other rights than those of hits.
    """

    text = "local values = {}\nfor i = 1, #KEYS do values[i] = redis.call('GET', KEYS[i]) end\nreturn values"

    def encode(self, keys: Sequence[bytes], costs: Sequence[Any], cached: bool = True) -> bytes:  # noqa: ARG002
        """Return the command that reads keys."""
        parts = [encode_call(self.text)[cached], encode_bulk(len(keys)), *(encode_bulk(key.decode()) for key in keys)]
        return b"*%d\r\n" % (3 + len(keys)) + b"".join(parts)

    def decode(self, reply: Any) -> list[Any]:
        """Return the value of each key; raise `StoreError` for an invalid reply."""
        if type(reply) is not list:
            raise StoreError("other", "unexpected reply to a script")
        return reply


def read_tags(value: object) -> dict[str, str]:
    """Return the lines of a value, as `plans.lua` describes them, by the escaped names of their policies."""
    lines = value.partition(b"\0")[0].decode(errors="replace").splitlines() if isinstance(value, bytes) else []
    return {line.partition(" ")[0]: line for line in lines}


class PlanScripts:
    """Choose the script of a hit: that of its quotas, which depend on the plan and the key.

    Without plans and overrides there is one script, whose keys depend on its quotas, so nothing can be changed. With
    either, even if they are empty, the keys are those of the name, and a state of other quotas is converted by the
    next hit. Raises `InputError` for invalid policies, plans and overrides.
    """

    def __init__(
        self,
        policies: Sequence[Policy],
        plans: Mapping[str, QuotaChanges] | None,
        overrides: Mapping[str, QuotaChanges] | None,
        name: str | None,
        cluster: bool,
    ) -> None:
        given = Plans.of(policies, plans, overrides)
        self.planned = given.may_change
        """Whether it can be changed, and a state has the quota of its last hit."""
        self._cluster = cluster
        self.followers = Followers()
        """Those that follow its changes."""
        self.default: Script | CompositeScript = create_script(policies, name, cluster, self.planned)
        """The script of a hit without a plan."""
        self.always_default = True
        """Whether a hit without a plan has that script, whatever its key."""
        self._use(given)

    def choose(self, key: Keys, plan: str | None) -> Script | CompositeScript:
        """Return the script of a hit; raise `InputError` if there is no such plan, or for an invalid key."""
        if plan is None and self.always_default:
            return self.default
        plans, scripts = self._state
        plans.check_plan(plan)
        named = name_keys(plans.policies, key) if plans.overrides else {}
        keys = tuple(ALL if policy.key == ALL else named.get(policy.name) for policy in plans.policies)
        quotas = plan, tuple(one if one in plans.overrides else None for one in keys)
        script = scripts.get(quotas)
        if script is None:
            changed = zip(plans.policies, keys, strict=True)
            script = scripts[quotas] = self._find(tuple(plans.policy_of(policy, plan, one) for policy, one in changed))
        return script

    @property
    def plans(self) -> Plans:
        """The policies with their plans and overrides."""
        return self._state[0]

    def update(
        self,
        policies: Policy | Sequence[Policy] | None,
        plans: Mapping[str, QuotaChanges] | None,
        overrides: Mapping[str, QuotaChanges] | None,
    ) -> None:
        """Replace the policies, plans or overrides, each if it is given; change nothing if one is invalid."""
        if not self.planned:
            raise InputError("the keys of this limiter depend on its quotas: create it with plans={} to change them")
        current = self._state[0]
        checked = current.policies if policies is None else check_policies(policies)
        changed = current.change(checked, plans, overrides)
        finish = self.followers.prepare(changed)
        before = self.default
        self.default = self._create(checked)
        try:
            self._use(changed)
        except InputError:
            self.default = before
            raise
        finish()

    # --- looks

    @property
    def scanned_suffix(self) -> bytes:
        """The end of the keys that name the clients of the limiter."""
        if isinstance(self.default, Script):
            return self.default.key_suffix
        if not self.planned:
            raise InputError(
                "keys of several policies are listed only for a limiter with plans: create it with plans={}"
            )
        return self.default.layout.slots

    def look(self, slots: SlotMap, key: Keys, plan: str | None) -> Session:
        """Look at a key with the quotas of its last hit; a policy without a state has that of `plan`.

        The result is the decision of each policy by name.
        """
        script = self.choose(key, plan)
        if isinstance(script, CompositeScript) and self.planned:
            return self._look_at(slots, [script.layout.find_tags(key)], script.policies, only_used=False)
        return self._look_without_plans(script, slots, key)

    def reset(self, slots: SlotMap, key: Keys) -> Session:
        """Restore the full quota of a key; with a mapping, the states of other policies keep their quotas."""
        script = self.default
        if isinstance(script, CompositeScript) and self.planned and not isinstance(key, str):
            tags = script.layout.find_tags(key)
            return self._look_at(slots, [tags], script.policies, only_used=False, cost=RESET_COST)
        return decide_hits(script, slots, [script.place_reset(key)], [RESET_COST])

    def look_at(self, slots: SlotMap, keys: Sequence[bytes]) -> Session:
        """Look at keys of a scan, as `look` does; the results have the policies that have a state."""
        if isinstance(self.default, Script):
            return self._look_by_one(self.default, slots, keys)
        clients = [[key[: key.index(b"}") + 1]] * len(self.default.policies) for key in keys]
        return self._look_at(slots, clients, self.default.policies, only_used=True)

    def _look_without_plans(self, script: Script | CompositeScript, slots: SlotMap, key: Keys) -> Session:
        place, cost = script.place(key, 0)
        (rows,) = yield from decide_hits(script, slots, [place], [cost])
        return [dict(zip(name_keys(script.policies, key), script.combine_each(rows)[1], strict=True))]

    def _look_by_one(self, script: Script, slots: SlotMap, keys: Sequence[bytes]) -> Session:
        decisions = yield from decide_hits(script, slots, keys, [0] * len(keys))
        return [one if isinstance(one, StoreError) else {script.policies[0].name: one} for one in decisions]

    def _look_at(
        self,
        slots: SlotMap,
        clients: Sequence[Sequence[bytes | None]],
        policies: Sequence[Policy],
        *,
        only_used: bool,
        cost: int = 0,
    ) -> Session:
        """Look at each of `clients`, given as the parts of the keys of all policies that stand for it."""
        keys = {tag: tag + self.scanned_suffix for tags in clients for tag in tags if tag is not None}
        values = yield from decide_hits(ValueReader(), slots, [*keys.values()], [0] * len(keys))
        lines = {tag: read_tags(value) for tag, value in zip(keys, values, strict=True)}
        known = {format_tag(policy): policy for policy in self._list_policies()}
        calls: dict[tuple[Policy, ...], list[tuple[int, list[bytes | None]]]] = {}
        for number, tags in enumerate(clients):
            quotas, asked = [], []
            here = [lines[tag] for tag in tags if tag is not None]
            for policy, tag in zip(policies, tags, strict=True):
                name = escape_name(
                    policy.name
                )  # also of a policy that is not asked, so that its state is not converted
                line = next((found[name] for found in (here if tag is None else [lines[tag]]) if name in found), None)
                quotas.append(policy if line is None else find_policy(policy, line, known))
                asked.append(tag if line is not None or not only_used else None)
            if any(asked):
                calls.setdefault(tuple(quotas), []).append((number, asked))
        results: list[dict[str, Decision]] = [{} for _ in clients]
        for same_quotas, group in calls.items():
            script = self._find(same_quotas)
            places = [script.layout.place_tags(asked) for _, asked in group]
            decided = yield from decide_hits(script, slots, places, [cost] * len(places))
            for (number, asked), rows in zip(group, decided, strict=True):
                if isinstance(rows, StoreError):
                    raise rows
                names = [policy.name for policy, tag in zip(policies, asked, strict=True) if tag is not None]
                results[number] = dict(zip(names, script.combine_each(rows)[1], strict=True))
        return results

    def _list_policies(self) -> set[Policy]:
        plans = self._state[0]
        changed = [*plans.plans.values(), *plans.overrides.values()]
        return {*plans.policies, *(policy for changes in changed for policy in changes.values())}

    def _use(self, plans: Plans) -> None:
        scripts: dict[object, Script | CompositeScript] = {(None, (None,) * len(plans.policies)): self.default}
        changed = [*plans.plans.values(), *plans.overrides.values()] if self.planned else []
        for policy in {policy for changes in changed for policy in changes.values()}:
            CompositeScript([policy], self.default.name, self._cluster, planned=True)  # checks its numbers
        self._by_policies: dict[tuple[Policy, ...], CompositeScript] = {}
        self._state, self.always_default = (plans, scripts), not plans.overrides

    def _find(self, policies: tuple[Policy, ...]) -> CompositeScript:
        """Return the script of policies, which all hits with these quotas share."""
        script = self._by_policies.get(policies)
        if script is None:
            script = self._by_policies[policies] = self._create(policies)
        return script

    def _create(self, policies: Sequence[Policy]) -> CompositeScript:
        return CompositeScript(policies, self.default.name, self._cluster, planned=True)


def find_policy(policy: Policy, line: str, known: Mapping[str, Policy]) -> Policy:
    """Return the policy whose quota a line in the store describes; `policy`, if that has become another one."""
    if line in known:
        return known[line]
    try:
        burst, limit, period = map(int, line.split(" ")[2:5])
        changed = policy.with_quota(Quota(limit, period * NS_PER_US, burst, policy.quota.calendar))
        return changed if format_tag(changed) == line else policy
    except (InputError, ValueError):
        return policy
