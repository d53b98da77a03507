import { conflict, notFound } from '@bulkhead/protocol';
import { lockLivingApp } from '../apps/lock.ts';
import { appColumns, type AppView } from '../apps/view.ts';
import type { TenantContext } from '../db/context.ts';
import type { Permission } from '../roles/permissions.ts';
import { Instances, type InstanceView } from './instances.ts';

export interface OneInstance {
  readonly app: string;
  readonly instance: string;
}

interface Found {
  readonly id: string;
  readonly paused: boolean;
}

/**
 * What a tenant orders of instances one by one: to be held still, to run on, to be replaced, to go.
 * Each only marks rows and leaves a note; the controllers take it from there. Again is the same.
 * NOT_FOUND for what is no instance of the app or has gone, CONFLICT for a one-off task.
 */
export class Orders {
  readonly #context: TenantContext;

  constructor(context: TenantContext) {
    this.#context = context;
  }

  /**
   * Holds every instance still. A release that is on trial must serve to be judged: CONFLICT while a
   * deployment runs. What is made later (by a scale, a deploy) runs.
   */
  async pauseApp(name: string): Promise<AppView> {
    this.#context.require('app.pause');
    const app = await this.#lock(name);
    await this.#refusePause(app);
    const changed = await this.#setPaused(app, true);
    if (changed > 0) await this.#note(app, 'app.pause', app.name, { instances: changed });
    return app;
  }

  async resumeApp(name: string): Promise<AppView> {
    this.#context.require('app.resume');
    const app = await this.#lock(name);
    const changed = await this.#setPaused(app, false);
    if (changed > 0) await this.#note(app, 'app.resume', app.name, { instances: changed });
    return app;
  }

  async pause(input: OneInstance): Promise<InstanceView> {
    return this.#order('app.pause', input, async (app, { id, paused }) => {
      if (paused) return;
      await this.#refusePause(app);
      await this.#setPaused(app, true, id);
      await this.#note(app, 'app.pause', `${app.name}/${id}`);
    });
  }

  async resume(input: OneInstance): Promise<InstanceView> {
    return this.#order('app.resume', input, async (app, { id, paused }) => {
      if (!paused) return;
      await this.#setPaused(app, false, id);
      await this.#note(app, 'app.resume', `${app.name}/${id}`);
    });
  }

  /** Makes another in its place, and ends it when that one is ready. */
  async restart(input: OneInstance): Promise<InstanceView> {
    return this.#order('app.restart', input, async (app, { id }) => {
      // As after a restart of the whole app: what is of an older epoch is replaced.
      const { count } = await this.#context.db.instance.updateMany({
        where: { id, epoch: { gte: app.epoch } },
        data: { epoch: app.epoch - 1 },
      });
      if (count > 0) await this.#note(app, 'app.restart', `${app.name}/${id}`);
    });
  }

  /** Ends it, once no request is left on it, and makes another if it is wanted; does not wait for that one. */
  async remove(input: OneInstance): Promise<InstanceView> {
    return this.#order('instance.delete', input, async (app, { id }) => {
      await this.#context.db.instance.updateMany({
        where: { id },
        // Out of the route with a revision of its own, also if it was leaving it to be held still.
        data: { desired: 'draining', drainRevision: null, drainStartedAt: null },
      });
      await this.#note(app, 'instance.delete', `${app.name}/${id}`);
    });
  }

  async #order(
    permission: Permission,
    input: OneInstance,
    work: (app: AppView, instance: Found) => Promise<void>,
  ): Promise<InstanceView> {
    const { db, tenant } = this.#context;
    this.#context.require(permission);
    const app = await this.#lock(input.app);
    const found = await db.instance.findFirst({
      where: { id: input.instance, appId: app.id, tenantId: tenant.id, goneAt: null },
      select: { id: true, paused: true, desired: true, oneOff: true },
    });
    if (!found) throw notFound(`instance ${input.instance}`);
    if (found.oneOff) {
      throw conflict(`instance ${found.id} is a one-off task: it can be stopped, and run again`);
    }
    // On its way out already: there is nothing left to order.
    if (found.desired === 'running') await work(app, found);
    return new Instances(this.#context).get(app.id, found.id);
  }

  async #refusePause(app: AppView): Promise<void> {
    const { db } = this.#context;
    if (app.state === 'stopped') throw conflict(`app ${app.name} is stopped: nothing of it runs`);
    const running = await db.deployment.count({ where: { appId: app.id, status: 'running' } });
    if (running > 0) {
      throw conflict(`a deployment of ${app.name} is on its way; pause when it is over`);
    }
  }

  async #setPaused(app: AppView, paused: boolean, id?: string): Promise<number> {
    const { db, tenant } = this.#context;
    const { count } = await db.instance.updateMany({
      where: {
        ...{ appId: app.id, tenantId: tenant.id, goneAt: null, oneOff: false },
        ...{ desired: 'running', paused: !paused },
        ...(id !== undefined && { id }),
      },
      data: { paused },
    });
    return count;
  }

  async #note(
    app: AppView,
    action: string,
    target: string,
    detail: Record<string, unknown> = {},
  ): Promise<void> {
    const { db, audit } = this.#context;
    await db.outbox.createMany({ data: [{ kind: 'app', key: app.id }] });
    await audit.write(action, target, detail);
  }

  /** With its instances, in the order that all writers keep. */
  async #lock(name: string): Promise<AppView> {
    const { db, tenant } = this.#context;
    const { id } = await lockLivingApp(db, tenant.id, name);
    await db.$queryRaw`
      SELECT 1 FROM "Instance" WHERE "appId" = ${id}::uuid AND "goneAt" IS NULL
      ORDER BY "id" FOR NO KEY UPDATE`;
    return db.app.findUniqueOrThrow({ where: { id }, select: appColumns });
  }
}
