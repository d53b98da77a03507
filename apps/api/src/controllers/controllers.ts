/**
 * The control loops of one process, wired together. They share no memory with those of other
 * replicas and need no leader: what two of them do at once is decided in PostgreSQL, by the app's
 * row lock, the nodes' row locks at placement and the publisher's advisory lock.
 *
 * What wakes what:
 *   outbox row (mutation) -> reconcile -> instance made -> placement -> outbox -> publisher -> node
 *   report -> rows -> reconcile -> route -> outbox -> publisher -> edges -> applied -> reconcile
 * Every loop also runs by itself once in a while, so a wake-up may be lost but never a change.
 */
import { randomInt } from 'node:crypto';
import { streams, subjects, type NodeUse } from '@bulkhead/protocol';
import type { Tenancy } from '@bulkhead/tenancy';
import type { Logger } from '../logger.ts';
import type { NatsLink } from '../nats/nats.ts';
import { allApps, appsInMotion, appsJustChanged, takeTurn } from './attention.ts';
import { EdgeTrafficWriter } from './edges/edge-traffic.ts';
import { EdgeWatch } from './edges/edge-watch.ts';
import { pruneHistory } from './history/prune.ts';
import { KeyedQueue, Loop } from './loop.ts';
import { metrics } from './metrics.ts';
import { NodeWatch } from './nodes/node-watch.ts';
import { NatsDelivery } from './outbox/delivery.ts';
import type { Delivery } from './outbox/delivery.ts';
import { Publisher, takeNudges } from './outbox/publisher.ts';
import { Refill } from './outbox/refill.ts';
import { Resync } from './outbox/resync.ts';
import { Placement } from './placement/place.ts';
import { orderMoves } from './placement/rebalance.ts';
import type { DrainMove } from './placement/plan-drain.ts';
import type { Applied } from './reports/apply-reports.ts';
import { ReportConsumer } from './reports/report-consumer.ts';
import { AppReconciler } from './rollout/reconcile.ts';

export interface ControllersOptions {
  readonly tenancy: Tenancy;
  readonly nats: NatsLink;
  readonly logger: Pick<Logger, 'info' | 'warn' | 'error'>;
  /** Apps live at `<app>.<tenant>.<platformDomain>`. */
  readonly platformDomain: string;
  /** Moves under way at once to spread what stands; 5 when absent, 0 for none. */
  readonly mostMoves?: number;
  /** Where values go; NATS unless a test wants to fail them. */
  readonly delivery?: Delivery;
}

const appsAtOnce = 4;
const defaultMoves = 5;
const tickMs = 1_000;
/** Most apps in motion that one tick looks at; the others are next. */
const appsPerTick = 100;
const nodesMs = 2_000;
const rebalanceMs = 30_000;
const changedMs = 20_000;
const sweepMs = 300_000;
const pruneMs = 3_600_000;
/** How long the mark of a deleted key stays in the bucket. */
const markerKeptMs = 3_600_000;

export class Controllers {
  readonly #options: ControllersOptions;
  readonly #apps: KeyedQueue;
  readonly #reconciler: AppReconciler;
  readonly #placement: Placement;
  readonly #publisher: Publisher;
  readonly #refill: Refill;
  /** Makes NATS equal to PostgreSQL, for an operator who asks for it. */
  readonly resync: Resync;
  readonly #reports: ReportConsumer;
  readonly #edges: EdgeWatch;
  readonly #traffic: EdgeTrafficWriter;
  readonly #nodes: NodeWatch;
  readonly #loops: Readonly<
    Record<
      | 'nudges'
      | 'placement'
      | 'rebalance'
      | 'publish'
      | 'refill'
      | 'tick'
      | 'nodes'
      | 'changed'
      | 'sweep'
      | 'prune',
      Loop
    >
  >;
  /** The app at which the last tick ended. */
  #tickedTo = '';
  readonly #undo: (() => void | Promise<void>)[] = [];
  #stopped = false;

  constructor(options: ControllersOptions) {
    const { tenancy, nats, platformDomain } = options;
    const now = () => performance.now();
    this.#options = options;
    this.#apps = new KeyedQueue({
      work: (appId) => this.#reconcile(appId),
      concurrency: appsAtOnce,
      onError: (appId, error) => this.#failed('reconcile', error, { appId }),
    });
    this.#edges = new EdgeWatch({ now, nudge: (appId) => this.nudge(appId) });
    this.#traffic = new EdgeTrafficWriter({
      tenancy,
      onError: (error) => this.#failed('traffic', error, {}),
    });
    this.#nodes = new NodeWatch({ tenancy, now, onNews: () => this.#loops.nodes.wake() });
    this.#reconciler = new AppReconciler({
      ...{ tenancy, platformDomain },
      edges: this.#edges,
    });
    this.#placement = new Placement({
      tenancy,
      imagesOf: (node) => this.#nodes.imagesOf(node),
      seed: () => randomInt(2 ** 31),
    });
    this.#publisher = new Publisher({
      tenancy,
      delivery: options.delivery ?? new NatsDelivery(nats),
      onError: (key, error) => this.#failed('publish', error, { key }),
    });
    this.#refill = new Refill({ tenancy, nats, now });
    this.resync = new Resync({ tenancy, nats });
    this.#reports = new ReportConsumer({
      tenancy,
      nats,
      onApplied: (applied) => this.#reported(applied),
      onError: (subject, error) => this.#failed('reports', error, { subject }),
    });
    this.#loops = {
      nudges: this.#loop('nudges', tickMs, () => this.#takeNudges()),
      placement: this.#loop('placement', tickMs, () => this.#place()),
      publish: this.#loop('publish', tickMs, () => this.#publish()),
      refill: this.#loop('refill', nodesMs, () => this.#checkStreams()),
      tick: this.#loop('tick', tickMs, () => this.#tick()),
      nodes: this.#loop('nodes', nodesMs, () => this.#flushNodes()),
      rebalance: this.#loop('rebalance', rebalanceMs, () => this.#rebalance()),
      changed: this.#loop('changed', changedMs, () =>
        this.#nudgeAll((tenancy) => appsJustChanged(tenancy, (2 * changedMs) / 1000)),
      ),
      sweep: this.#loop('sweep', sweepMs, () => this.#nudgeAll(allApps)),
      prune: this.#loop('prune', pruneMs, () => this.#prune()),
    };
  }

  /** Starts every loop; those that need NATS wait for it in the background. */
  start(): void {
    for (const loop of Object.values(this.#loops)) loop.start();
    this.#reports.start();
    this.#undo.push(
      this.#options.tenancy.listen('outbox', () => this.#outboxChanged()),
      this.#options.nats.onRecreated(() => {
        this.#reports.renew();
        this.#loops.refill.wake();
      }),
    );
    void this.#listen();
  }

  /** Ends after the work under way; what is not done yet stays in the database for the next to do. */
  async stop(): Promise<void> {
    this.#stopped = true;
    this.#edges.stop();
    this.#nodes.stop();
    for (const undo of this.#undo.splice(0).reverse()) await undo();
    await Promise.all(Object.values(this.#loops).map((loop) => loop.stop()));
    await this.#reports.stop();
    await this.#traffic.stop();
    await this.#apps.stop();
  }

  /** Look at this app now. Safe at any time and as often as one likes. */
  nudge(appId: string): void {
    this.#apps.add(appId);
  }

  /** What draining a node would do now; changes nothing. */
  planDrain(node: string): Promise<DrainMove[]> {
    return this.#placement.planDrain(node);
  }

  /** What a node said lately that it uses, as this replica heard it. */
  nodeUse(node: string): NodeUse | null {
    return this.#nodes.useOf(node);
  }

  #outboxChanged(): void {
    this.#loops.nudges.wake();
    this.#loops.publish.wake();
  }

  async #listen(): Promise<void> {
    const { nats } = this.#options;
    try {
      await nats.whenReady();
    } catch {
      return;
    }
    if (this.#stopped) return;
    const nc = nats.nc;
    this.#edges.listen(nc);
    this.#traffic.listen(nc);
    this.#nodes.listen(nc);
    this.#loops.publish.wake();
    for await (const status of nc.status()) {
      if (this.#stopped) return;
      if (status.type === 'disconnect') {
        this.#edges.disconnected();
        this.#nodes.disconnected();
      } else if (status.type === 'reconnect') {
        this.#edges.connected();
        this.#nodes.connected();
        this.#loops.refill.wake();
        this.#loops.publish.wake();
      }
    }
  }

  async #reconcile(appId: string): Promise<'again' | 'done'> {
    const end = metrics.reconciles.startTimer();
    const { steps, effects } = await this.#reconciler.reconcile(appId);
    end();
    if (steps.length === 0) return 'done';
    if (effects.placement) this.#loops.placement.wake();
    if (effects.publish) this.#loops.publish.wake();
    for (const step of steps) {
      metrics.steps.inc({ kind: step.do });
      const { do: kind, why } = step;
      if (kind !== 'tell') this.#options.logger.info({ part: 'rollout', appId, ...step }, why);
    }
    this.#tellOthers([appId]);
    // Asking the edges again is for the tick to repeat; everything else may have a next step.
    return steps.some((step) => step.do !== 'ask-edges') ? 'again' : 'done';
  }

  async #place(): Promise<'again' | 'done'> {
    const { apps, placed, lostRaces, refused, more } = await this.#placement.place();
    if (placed > 0) this.#loops.publish.wake();
    metrics.placed.inc({ outcome: 'placed' }, placed);
    metrics.placed.inc({ outcome: 'lost-race' }, lostRaces);
    metrics.waiting.set(refused);
    this.#lookAt(apps);
    return more || (placed > 0 && lostRaces > 0) ? 'again' : 'done';
  }

  async #rebalance(): Promise<'done'> {
    const apps = await orderMoves({
      tenancy: this.#options.tenancy,
      imagesOf: (node) => this.#nodes.imagesOf(node),
      mostMoves: this.#options.mostMoves ?? defaultMoves,
      seed: () => randomInt(2 ** 31),
    });
    metrics.moves.inc(apps.length);
    this.#lookAt(apps);
    return 'done';
  }

  async #publish(): Promise<'again' | 'done'> {
    if (!(await this.#options.nats.isUp())) return 'done';
    const { published, failed, more, apps } = await this.#publisher.publish();
    metrics.published.inc({ outcome: 'published' }, published);
    metrics.published.inc({ outcome: 'failed' }, failed);
    this.#lookAt(apps);
    return more ? 'again' : 'done';
  }

  async #takeNudges(): Promise<'done'> {
    const apps = await takeNudges(this.#options.tenancy);
    for (const appId of apps) this.nudge(appId);
    // One of them may have a one-off task, which no reconciliation has to make first.
    if (apps.length > 0) this.#loops.placement.wake();
    return 'done';
  }

  async #checkStreams(): Promise<'done'> {
    if (!(await this.#options.nats.isUp())) return 'done';
    const filled = await this.#refill.check();
    if (filled.length > 0) {
      metrics.refills.inc(filled.length);
      this.#options.logger.warn({ part: 'refill', filled }, 'buckets filled from PostgreSQL');
      this.#loops.publish.wake();
    }
    return 'done';
  }

  async #tick(): Promise<'done'> {
    const apps = takeTurn(await appsInMotion(this.#options.tenancy), this.#tickedTo, appsPerTick);
    for (const appId of apps) this.nudge(appId);
    this.#tickedTo = apps.at(-1) ?? '';
    return 'done';
  }

  async #nudgeAll(find: (tenancy: Tenancy) => Promise<string[]>): Promise<'done'> {
    for (const appId of await find(this.#options.tenancy)) this.nudge(appId);
    return 'done';
  }

  async #flushNodes(): Promise<'done'> {
    const { steps, apps } = await this.#nodes.flush();
    for (const { node, to, why } of steps) {
      metrics.nodes.inc({ to });
      this.#options.logger.warn({ part: 'nodes', node, to }, why);
    }
    if (steps.some(({ to }) => to === 'ready')) this.#loops.placement.wake();
    for (const appId of apps) this.nudge(appId);
    return 'done';
  }

  async #prune(): Promise<'done'> {
    const removed = await pruneHistory(this.#options.tenancy);
    // A node that missed a marker learns the same from its next snapshot. Without NATS there is no hurry.
    if (await this.#options.nats.isUp()) {
      const desired = await this.#options.nats.kv(streams.desiredBucket);
      await desired.purgeDeletes(markerKeptMs);
    }
    if (removed.instances + removed.events + removed.minutes > 0) {
      this.#options.logger.info({ part: 'prune', ...removed }, 'old history forgotten');
    }
    return 'done';
  }

  #reported(applied: Applied): void {
    metrics.reports.inc({ outcome: 'written' }, applied.applied);
    metrics.reports.inc({ outcome: 'ignored' }, applied.ignored);
    metrics.reports.inc({ outcome: 'stray' }, applied.strays);
    if (applied.publish) this.#loops.publish.wake();
    this.#lookAt(applied.apps);
  }

  /** Rows of these apps changed: decide what follows, and tell whoever watches them. */
  #lookAt(apps: readonly string[]): void {
    for (const appId of apps) this.nudge(appId);
    this.#tellOthers(apps);
  }

  /** For subscriptions in any replica of the API. Plain NATS: nobody depends on hearing it. */
  #tellOthers(apps: readonly string[]): void {
    if (apps.length === 0) return;
    try {
      const { nc } = this.#options.nats;
      for (const appId of apps) nc.publish(subjects.nudge, appId);
    } catch (error) {
      this.#failed('nudge', error, {});
    }
  }

  #loop(name: string, everyMs: number, work: () => Promise<'again' | 'done'>): Loop {
    return new Loop({ work, everyMs, onError: (error) => this.#failed(name, error, {}) });
  }

  #failed(loop: string, error: unknown, detail: Record<string, unknown>): void {
    metrics.errors.inc({ loop });
    this.#options.logger.error({ part: loop, err: error, ...detail }, 'failed, tried again later');
  }
}
