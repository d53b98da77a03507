import { conflict, notFound, stagesOf, rolloutStrategy } from '@bulkhead/protocol';
import { lockLivingApp } from '../apps/lock.ts';
import type { AppView } from '../apps/view.ts';
import type { TenantContext } from '../db/context.ts';
import { isUuid } from '../db/ids.ts';
import type { Deployment } from '../generated/client.ts';
import { emailsOf } from '../members/emails.ts';
import { PlatformQuota } from '../quota/quota.ts';
import { PlatformDeployments } from './platform-deployments.ts';
import { isGated } from './strategy.ts';
import { deploymentColumns, toDeploymentView, type DeploymentView } from './view.ts';

export interface WhichDeployment {
  readonly app: string;
  /** Null: the newest. CONFLICT when it is over already, unless that is what is asked for. */
  readonly deployment?: string | null;
}

/** People's word in a deployment under way. Both lock the app, leave a nudge, and are in the audit log. */
export class Gates {
  readonly #context: TenantContext;

  constructor(context: TenantContext) {
    this.#context = context;
  }

  /**
   * Lets a deployment through the gate that it stands at; `full`, through all that are left.
   * `step`, the number of the gate as it was shown, makes it safe to ask twice: a gate that is
   * passed already is not another one's. CONFLICT when it does not stand at a gate, and says why.
   */
  async promote(
    input: WhichDeployment & { step?: number | null; full?: boolean | null },
  ): Promise<DeploymentView> {
    const { db, now, caller } = this.#context;
    this.#context.require('app.promote');
    const { app, row } = await this.#find(input);
    const gates = stagesOf(rolloutStrategy.parse(row.strategy)).length;
    const passed = input.step != null && row.step >= input.step;
    if (passed && (row.status === 'running' || row.status === 'succeeded')) return this.#view(row);
    if (row.status !== 'running') throw conflict(`nothing to promote: ${ended(app, row)}`);
    if (!isGated(row)) {
      const why = gates === 0 ? 'it has no steps to wait at' : 'it was promoted before';
      throw conflict(`the deployment of ${app.name} goes on by itself: ${why}`);
    }
    if (row.reachedAt === null) {
      throw conflict(
        `step ${row.step + 1} of ${gates} is not reached yet: not all of its instances are ready; see bulkhead deployments follow`,
      );
    }
    const step = input.full === true ? gates : row.step + 1;
    const platform = new PlatformDeployments(db, now);
    await platform.advance(row.id, step, now);
    await platform.addEvent(row.id, `Promoted past step ${step} of ${gates} by ${caller.email}`);
    await this.#context.audit.write('app.promote', app.name, { deployment: row.id, step });
    await db.outbox.createMany({ data: [{ kind: 'app', key: app.id }] });
    return this.#view(row);
  }

  /**
   * Ends a deployment and goes back to what ran before, as when it fails. CONFLICT when it is over,
   * or has nothing that could be taken back (scale, stop, start).
   */
  async abort(input: WhichDeployment): Promise<DeploymentView> {
    const { db, now, caller } = this.#context;
    this.#context.require('app.abort');
    const { app, row } = await this.#find(input);
    const asked = input.deployment != null && row.status === 'failed';
    if (asked && (row.failure as { code?: string } | null)?.code === 'ABORTED') {
      return this.#view(row);
    }
    if (row.status !== 'running') throw conflict(`nothing to abort: ${ended(app, row)}`);
    const moves = !['scale', 'stop', 'start'].includes(row.kind) || isGated(row);
    if (!moves) {
      throw conflict(
        `a ${row.kind} cannot be aborted; ${row.kind === 'scale' ? 'scale' : 'stop or start'} again`,
      );
    }
    const none = { process: null, instance: null, exitCode: null, lastLines: [] };
    const failure = { code: 'ABORTED' as const, message: `aborted by ${caller.email}`, ...none };
    await new PlatformDeployments(db, now).fail(row.id, failure);
    // Nothing of it may exist yet that would give its reservation back by going.
    await new PlatformQuota(db).settle(app.id);
    await this.#context.audit.write('app.abort', app.name, { deployment: row.id });
    await db.outbox.createMany({ data: [{ kind: 'app', key: app.id }] });
    return this.#view(row);
  }

  async #find({ app: name, deployment: id = null }: WhichDeployment) {
    const { db, tenant } = this.#context;
    const app = await lockLivingApp(db, tenant.id, name);
    const row =
      id !== null && !isUuid(id)
        ? null
        : await db.deployment.findFirst({
            where: { appId: app.id, tenantId: tenant.id, ...(id !== null && { id }) },
            orderBy: [{ createdAt: 'desc' }, { id: 'desc' }],
          });
    if (row) return { app, row };
    if (id !== null) throw notFound('deployment');
    throw conflict(`app ${name} has no deployment yet; deploy an image first`);
  }

  async #view({ id }: Deployment): Promise<DeploymentView> {
    const { db } = this.#context;
    const row = await db.deployment.findUniqueOrThrow({ where: { id }, select: deploymentColumns });
    return toDeploymentView(row, await emailsOf(db, [row.createdById]));
  }
}

function ended(app: AppView, { status }: Deployment): string {
  const verdicts = {
    running: 'runs',
    succeeded: 'has succeeded',
    failed: 'has failed',
    superseded: 'was superseded by a newer one; see bulkhead deployments',
  };
  return `that deployment of ${app.name} ${verdicts[status]}`;
}
