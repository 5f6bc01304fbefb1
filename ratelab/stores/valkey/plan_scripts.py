"""The scripts of a limiter by plan and by key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ratelab.algorithms import Policy
from ratelab.algorithms.composite import check_policies
from ratelab.errors import InputError
from ratelab.limiter import Keys
from ratelab.stores.arguments import name_keys
from ratelab.stores.plans import Followers, Plans, QuotaChanges
from ratelab.stores.policy_groups import ALL
from ratelab.stores.valkey.composite_script import CompositeScript, create_script
from ratelab.stores.valkey.script import Script


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
        self._planned = plans is not None or overrides is not None
        self._cluster = cluster
        self.followers = Followers()
        """Those that follow its changes."""
        self.default: Script | CompositeScript = create_script(policies, name, cluster, self._planned)
        """The script of a hit without a plan."""
        self.always_default = True
        """Whether a hit without a plan has that script, whatever its key."""
        self._use(Plans.of(policies, plans or {}, overrides or {}))

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
        if not self._planned:
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

    def _use(self, plans: Plans) -> None:
        scripts: dict[object, Script | CompositeScript] = {(None, (None,) * len(plans.policies)): self.default}
        changed = [*plans.plans.values(), *plans.overrides.values()] if self._planned else []
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
