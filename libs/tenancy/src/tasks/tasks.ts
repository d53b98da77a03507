import {
  conflict,
  invalid,
  notFound,
  resources as resourcesSchema,
  taskDefinition,
  type ProcessDefinition,
} from '@bulkhead/protocol';
import { z } from 'zod';
import { lockApp, lockLivingApp } from '../apps/lock.ts';
import { programOf } from '../audit/program.ts';
import type { TenantContext } from '../db/context.ts';
import { makeShortId } from '../db/ids.ts';
import { parse } from '../db/parse.ts';
import type { Release } from '../generated/client.ts';
import { Instances, type InstanceView } from '../instances/instances.ts';
import { reserve } from '../quota/ledger.ts';
import { taskSubject } from '../quota/process-amounts.ts';
import { findVersion } from '../releases/releases.ts';
import { readProcesses } from '../releases/stored-processes.ts';

/** What a one-off task is to run; what is left out is as in the process whose settings it has. */
export interface TaskRequest {
  readonly app: string;
  /** The program and its arguments. */
  readonly command: readonly string[];
  /** Whose settings it has: `web`, or the release's first process, when left out. */
  readonly process?: string | null | undefined;
  /** Version; the current one when left out. */
  readonly release?: number | null | undefined;
  readonly cpuMillis?: number | null | undefined;
  readonly cpuCapMillis?: number | null | undefined;
  readonly memoryMiB?: number | null | undefined;
  readonly diskMiB?: number | null | undefined;
  readonly terminal?: boolean | null | undefined;
  readonly stdin?: boolean | null | undefined;
  /** It is stopped after this time; a day when left out. */
  readonly timeoutSeconds?: number | null | undefined;
}

/** What the rows of tasks have as their process: no process of a release is meant. */
export const taskProcess = 'run';
const defaultTimeoutSeconds = 24 * 3600;
const timeout = z
  .int()
  .min(1)
  .max(7 * 24 * 3600);
const wholeCommand = taskDefinition.shape.command.refine(
  (words) => words[0] !== '' && words.every((word) => !word.includes('\0')),
  'name a program, and no word with a NUL character in it',
);

/**
 * One-off tasks of the bound tenant: instances that run a command of their own once, beside what
 * the app's formation wants. They cost quota until they are proven gone, like every instance.
 */
export class Tasks {
  readonly #context: TenantContext;

  constructor(context: TenantContext) {
    this.#context = context;
  }

  /** Reserves the task's quota and leaves it to the controllers. CONFLICT without a release, or while the app is stopped. */
  async run(request: TaskRequest): Promise<InstanceView> {
    const { db, tenant, now, audit } = this.#context;
    this.#context.require('task.run');
    const command = parse(wholeCommand, request.command, 'command');
    const seconds = parse(
      timeout,
      request.timeoutSeconds ?? defaultTimeoutSeconds,
      'timeoutSeconds',
    );
    const app = await lockLivingApp(db, tenant.id, request.app);
    if (app.state === 'stopped') throw conflict(`app ${app.name} is stopped; start it first`);
    const release = await this.#release(app, request.release ?? null);
    const process = chooseProcess(release, request.process ?? null);
    const sizes = parse(resourcesSchema, sizesOf(process, request), 'resources');
    const task = {
      command,
      process: process.name,
      resources: sizes,
      graceSeconds: process.graceSeconds,
      readOnlyRoot: process.readOnlyRoot,
      terminal: request.terminal ?? false,
      stdin: request.stdin ?? false,
    };
    const id = makeShortId('i');
    const { cpuMillis, memoryMiB, diskMiB } = sizes;
    await reserve(db, tenant.id, [
      {
        subject: taskSubject(app.id, id),
        amounts: { instances: 1, cpuMillis, memoryMiB, diskMiB },
      },
    ]);
    await db.instance.create({
      data: {
        ...{ id, tenantId: tenant.id, appId: app.id, releaseId: release.id, epoch: app.epoch },
        ...{ process: taskProcess, oneOff: true, task, cpuMillis, memoryMiB, diskMiB },
        createdAt: now,
        deadlineAt: new Date(now.getTime() + seconds * 1000),
      },
    });
    await db.outbox.createMany({ data: [{ kind: 'app', key: app.id }] });
    await audit.write('task.run', `${app.name}/${id}`, {
      ...programOf(command),
      process: process.name,
      release: release.version,
    });
    return new Instances(this.#context).get(app.id, id);
  }

  /** Ends a task; one that has ended stays so. NOT_FOUND for what is no task of this app. */
  async stop(input: { app: string; instance: string }): Promise<InstanceView> {
    const { db, tenant, audit } = this.#context;
    this.#context.require('task.run');
    const app = await lockApp(db, tenant.id, input.app);
    const task = await db.instance.findFirst({
      where: { id: input.instance, appId: app.id, tenantId: tenant.id, oneOff: true },
      select: { id: true, nodeId: true, desired: true, goneAt: true },
    });
    if (!task) throw notFound(`task ${input.instance}`);
    if (task.goneAt === null && task.desired !== 'gone') {
      await db.instance.update({
        where: { id: task.id },
        data: { desired: 'gone', generation: { increment: 1 } },
      });
      // One without a node is forgotten by the app's reconciliation.
      const node =
        task.nodeId === null ? [] : [{ kind: 'instance', key: `${task.nodeId}.${task.id}` }];
      await db.outbox.createMany({ data: [{ kind: 'app', key: app.id }, ...node] });
      await audit.write('task.stop', `${app.name}/${task.id}`);
    }
    return new Instances(this.#context).get(app.id, task.id);
  }

  /** Somebody wants to be at its standard streams. NOT_FOUND for what is no task of this app. */
  async attach(input: { app: string; instance: string }): Promise<InstanceView> {
    const { db, tenant, audit } = this.#context;
    this.#context.require('task.run');
    const task = await db.instance.findFirst({
      where: { id: input.instance, tenantId: tenant.id, oneOff: true, app: { name: input.app } },
      select: { id: true, appId: true },
    });
    if (!task) throw notFound(`task ${input.instance}`);
    await audit.write('task.attach', `${input.app}/${task.id}`);
    return new Instances(this.#context).get(task.appId, task.id);
  }

  async #release(
    app: { id: string; name: string; currentReleaseId: string | null },
    version: number | null,
  ): Promise<Release> {
    const { db, tenant } = this.#context;
    if (version === null) {
      if (app.currentReleaseId === null) {
        throw conflict(`app ${app.name} has no release yet; deploy an image first`);
      }
      return db.release.findUniqueOrThrow({ where: { id: app.currentReleaseId } });
    }
    const release = z.int32().safeParse(version).success
      ? await findVersion(db, tenant.id, app.id, version)
      : null;
    if (!release) throw notFound(`release v${version} of ${app.name}`);
    return release;
  }
}

function chooseProcess(release: Release, name: string | null): ProcessDefinition {
  const processes = readProcesses(release.processes);
  const wanted =
    name ?? (processes.some((each) => each.name === 'web') ? 'web' : processes[0]?.name);
  const found = processes.find((each) => each.name === wanted);
  if (found) return found;
  const known = processes.map((each) => each.name);
  throw invalid(`release v${release.version} has no process ${name}; it has ${known.join(', ')}`, {
    process: name,
    known,
  });
}

function sizesOf(
  { resources }: ProcessDefinition,
  request: TaskRequest,
): ProcessDefinition['resources'] {
  const cpuMillis = request.cpuMillis ?? resources.cpuMillis;
  return {
    ...resources,
    cpuMillis,
    cpuCapMillis: request.cpuCapMillis ?? Math.max(resources.cpuCapMillis, cpuMillis),
    memoryMiB: request.memoryMiB ?? resources.memoryMiB,
    diskMiB: request.diskMiB ?? resources.diskMiB,
  };
}
