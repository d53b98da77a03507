import { appColumns, getApp, type AppView } from '../apps/view.ts';
import { lockLivingApp } from '../apps/lock.ts';
import type { TenantContext } from '../db/context.ts';
import type { DeploymentView } from '../deployments/deployments.ts';
import type { Mover } from '../deployments/mover.ts';
import type { StrategyRequest } from '../deployments/strategy.ts';
import { readConfig, writeConfig } from './store.ts';
import { applyConfigChanges, type ConfigChange } from './vars.ts';

export interface ConfigVarView {
  readonly name: string;
  readonly value: string;
}

/** Config of apps of the bound tenant; at rest only sealed by the platform's config key. */
export class Config {
  readonly #context: TenantContext;
  readonly #mover: Mover;

  constructor(context: TenantContext, mover: Mover) {
    this.#context = context;
    this.#mover = mover;
  }

  /** By name, in the clear: needs `config.read`. */
  async list(app: string): Promise<readonly ConfigVarView[]> {
    this.#context.require('config.read');
    const { id } = await getApp(this.#context, app);
    return [...(await readConfig(this.#context, id))].map(([name, value]) => ({ name, value }));
  }

  /**
   * Sets, and removes where the value is null. With a release this makes the next release and
   * rolls it out, in one transaction; without one, or when nothing changes, `deployment` is null.
   * INVALID: a bad or repeated name, PORT, HOSTNAME or BULKHEAD_*, a value over 32 KiB, over 256
   * KiB in all.
   */
  async set(input: {
    app: string;
    vars: readonly ConfigChange[];
    strategy?: StrategyRequest | null;
  }): Promise<{ app: AppView; deployment: DeploymentView | null }> {
    const { db, tenant } = this.#context;
    this.#context.require('config.set');
    const app = await lockLivingApp(db, tenant.id, input.app);
    const before = await readConfig(this.#context, app.id);
    const after = applyConfigChanges(before, input.vars);
    const changed = input.vars.filter(({ name }) => before.get(name) !== after.get(name));
    if (changed.length === 0) return { app, deployment: null };
    await writeConfig(this.#context, app.id, after);
    const set = changed.filter(({ name }) => after.has(name)).map(({ name }) => name);
    const unset = changed.filter(({ name }) => !after.has(name)).map(({ name }) => name);
    await this.#context.audit.write('config.set', app.name, { set, unset });
    if (app.currentReleaseId === null) return { app, deployment: null };
    const description = [
      set.length > 0 ? `Set ${set.join(', ')}` : '',
      unset.length > 0 ? `Unset ${unset.join(', ')}` : '',
    ]
      .filter(Boolean)
      .join('; ')
      .slice(0, 500);
    const deployment = await this.#mover.releaseAgain(app, app.currentReleaseId, after, {
      kind: 'config',
      pace: 'default',
      strategy: input.strategy ?? null,
      description,
    });
    return {
      app: await db.app.findUniqueOrThrow({ where: { id: app.id }, select: appColumns }),
      deployment,
    };
  }
}
