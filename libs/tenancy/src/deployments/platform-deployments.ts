import type { DeploymentFailure } from '@bulkhead/protocol';
import type { Db } from '../db/context.ts';
import type { Deployment, Prisma } from '../generated/client.ts';
import { readProcessEntries, setEntries } from '../quota/ledger.ts';
import { maxAmounts, wantedAmounts } from '../quota/process-amounts.ts';
import type { ProcessDefinition } from '@bulkhead/protocol';
import { readProcesses } from '../releases/stored-processes.ts';

const maxEvents = 500;

/** For controllers, on the platform door. Ending is a no-op that answers false unless the deployment is `running`. */
export class PlatformDeployments {
  readonly #db: Db;
  readonly #now: Date;

  constructor(db: Db, now: Date) {
    this.#db = db;
    this.#now = now;
  }

  /** Written for people; after 500 of one deployment nothing more is kept. */
  async addEvent(deploymentId: string, message: string): Promise<void> {
    await this.#db.$executeRaw`
      INSERT INTO "DeploymentEvent" ("tenantId", "deploymentId", "at", "message")
      SELECT "tenantId", "id", ${this.#now}, ${message.slice(0, 2000)} FROM "Deployment"
      WHERE "id" = ${deploymentId}::uuid AND ${maxEvents} >
        (SELECT count(*) FROM "DeploymentEvent" WHERE "deploymentId" = ${deploymentId}::uuid)`;
  }

  /** It stands at its gate from now on. */
  async reach(deploymentId: string, now: Date): Promise<void> {
    await this.#db.deployment.updateMany({
      where: { id: deploymentId, status: 'running', reachedAt: null },
      data: { reachedAt: now },
    });
  }

  /** `step` gates lie behind it; the time that it has for the next stretch begins. */
  async advance(deploymentId: string, step: number, now: Date): Promise<void> {
    await this.#db.$executeRaw`
      UPDATE "Deployment" SET "step" = ${step}, "reachedAt" = NULL, "progress" = -2147483648,
        "progressAt" = ${now}, "deadlineAt" = ${now}::timestamptz + ("deadlineAt" - "progressAt")
      WHERE "id" = ${deploymentId}::uuid AND "status" = 'running' AND "step" < ${step}`;
  }

  /** More of it is done than ever before: its time begins again. */
  async noteProgress(deploymentId: string, progress: number, now: Date): Promise<void> {
    await this.#db.$executeRaw`
      UPDATE "Deployment" SET "progress" = ${progress}, "progressAt" = ${now},
        "deadlineAt" = ${now}::timestamptz + ("deadlineAt" - "progressAt")
      WHERE "id" = ${deploymentId}::uuid AND "status" = 'running' AND "progress" < ${progress}`;
  }

  async succeed(deploymentId: string): Promise<boolean> {
    return (await this.#end(deploymentId, { status: 'succeeded' })) !== null;
  }

  /**
   * Marks it failed and, when it came from another release, makes that release current again (a
   * nudge and an event say so). The first deploy has nothing to go back to: its release stays. Of a
   * restart, what it has not reached is left as it is.
   */
  async fail(deploymentId: string, failure: DeploymentFailure): Promise<boolean> {
    const ended = await this.#end(deploymentId, {
      status: 'failed',
      failure: failure as unknown as Prisma.InputJsonObject,
    });
    if (!ended) return false;
    await this.addEvent(deploymentId, `Failed: ${failure.message}`);
    const { appId, fromReleaseId, toReleaseId } = ended;
    if (fromReleaseId === null) return true;
    if (fromReleaseId === toReleaseId) {
      await this.#keepEpochs(appId);
      return true;
    }
    const from = await this.#db.release.findUnique({ where: { id: fromReleaseId } });
    // Whoever is destroying the app wants nothing back.
    const { count } = await this.#db.app.updateMany({
      where: { id: appId, currentReleaseId: toReleaseId, state: { not: 'deleting' } },
      data: { currentReleaseId: fromReleaseId },
    });
    if (!from || count === 0) return true;
    await this.#holdAgain(appId, readProcesses(from.processes));
    await this.addEvent(deploymentId, `Going back to v${from.version}`);
    await this.#db.outbox.createMany({ data: [{ kind: 'app', key: appId }] });
    return true;
  }

  /** Instances of an older epoch count as restarted. */
  async #keepEpochs(appId: string): Promise<void> {
    const app = await this.#db.app.findUniqueOrThrow({ where: { id: appId } });
    await this.#db.instance.updateMany({
      where: { appId, releaseId: app.currentReleaseId ?? '', goneAt: null, desired: 'running' },
      data: { epoch: app.epoch },
    });
    await this.#db.outbox.createMany({ data: [{ kind: 'app', key: appId }] });
  }

  async #end(
    id: string,
    data: Prisma.DeploymentUpdateManyMutationInput,
  ): Promise<Deployment | null> {
    // The app's row first, as everybody who changes deployments does.
    await this.#db.$queryRaw`
      SELECT 1 FROM "App" WHERE "id" = (SELECT "appId" FROM "Deployment" WHERE "id" = ${id}::uuid)
      FOR NO KEY UPDATE`;
    const { count } = await this.#db.deployment.updateMany({
      where: { id, status: 'running' },
      data: { ...data, finishedAt: this.#now },
    });
    return count === 0 ? null : this.#db.deployment.findUnique({ where: { id } });
  }

  /**
   * Reserves what the restored release wants without asking for the limit. `settle` kept that much
   * while the deployment ran, but for one that raised counts and lowered sizes at once; then the
   * ledger says truly that the tenant is over its limit, and nothing new fits until it is not.
   */
  async #holdAgain(appId: string, processes: readonly ProcessDefinition[]): Promise<void> {
    const app = await this.#db.app.findUniqueOrThrow({
      where: { id: appId },
      include: { formations: true },
    });
    const counts = new Map(app.formations.map(({ process, count }) => [process, count]));
    const wanted = wantedAmounts({ ...app, processes, counts });
    const held = await readProcessEntries(this.#db, app.tenantId, appId);
    await setEntries(
      this.#db,
      app.tenantId,
      [...wanted].map(([subject, amounts]) => ({
        subject,
        amounts: maxAmounts(amounts, held.get(subject)),
      })),
    );
  }
}
