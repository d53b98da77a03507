/**
 * The loop body for one app: lock, read, plan, apply, commit; then wake whoever has work now. A
 * nudge carries nothing, so it does not matter how many arrive or which replica hears them.
 */
import type { Tenancy } from '@bulkhead/tenancy';
import type { EdgeWatch } from '../edges/edge-watch.ts';
import type { AppSnapshot } from './app-snapshot.ts';
import { applyRollout, newInstanceId } from './apply-rollout.ts';
import type { Effects } from './apply-rollout.ts';
import { planRollout } from './plan-rollout.ts';
import type { Step } from './plan-rollout.ts';
import { lockApp, readApp } from './read-app.ts';

export interface AppReconcilerOptions {
  readonly tenancy: Tenancy;
  readonly edges: Pick<EdgeWatch, 'look' | 'remember' | 'forget'>;
  /** Apps live at `<app>.<tenant>.<platformDomain>`. */
  readonly platformDomain: string;
  /** What each pool may hold beyond its capacity. */
}

export interface Reconciled {
  readonly steps: readonly Step[];
  readonly effects: Effects;
}

const nothing: Reconciled = {
  steps: [],
  effects: { placement: false, publish: false, finished: false },
};

export class AppReconciler {
  readonly #options: AppReconcilerOptions;

  constructor(options: AppReconcilerOptions) {
    this.#options = options;
  }

  /** Moves one app a step nearer to what is wanted; an empty list of steps means there was nothing to do now. */
  async reconcile(appId: string): Promise<Reconciled> {
    const { tenancy, edges, platformDomain } = this.#options;
    return tenancy.platform(async (tx) => {
      if (!(await lockApp(tx, appId))) return nothing;
      const stored = await readApp(tx, appId);
      if (!stored) return nothing;
      const host = `${stored.name}.${stored.tenantSlug}.${platformDomain}`;
      edges.remember(host, appId);
      const app: AppSnapshot = { ...stored, host, edges: edges.look(host) };
      const steps = planRollout(app, newInstanceId);
      if (steps.length === 0) return nothing;
      const effects = await applyRollout(tx, app, steps);
      if (effects.finished) edges.forget(host);
      return { steps, effects };
    });
  }
}
