import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { sha256Digest } from '@bulkhead/protocol';
import { z } from 'zod';
import { ImageStorage, parseJson } from './image-storage.ts';
import type { ImageSource } from './image-storage.ts';
import { bytesToFree, planImageRemoval } from './plan-image-removal.ts';
import type { RemovalCandidate } from './plan-image-removal.ts';
import { copyImage, roomFor } from './image-pull.ts';
import { platform, pullError } from './pull-errors.ts';
import { RuntimeError } from './runtime.ts';
import type { HostUsage, PullProgress, RuntimeEvent, WaterMarks } from './runtime.ts';
import { step } from './steps.ts';

/**
 * Images of this host: pulled by digest, kept while something runs from them, and removed when the
 * disk fills up. Containers share their layers. An image counts as present for a repository only
 * after a pull from that repository went through, so that knowing another tenant's digest opens
 * nothing.
 *
 * Pulls and removals go on at the same time. skopeo's locks keep the storage whole; a pull whose
 * layers were removed under it is tried again. What a record promises is kept by two rules: an image
 * loses its records before its layers go, and no record is written while a removal runs.
 */
const imageRecord = z.object({
  v: z.literal(1),
  digest: sha256Digest,
  repositories: z.array(z.string()),
  /** Directories of the layers relative to the storage, topmost first. */
  layers: z.array(z.string()),
});
type ImageRecord = z.infer<typeof imageRecord>;

const repositoryName = /^[A-Za-z0-9][A-Za-z0-9.:_/-]*$/;
const pullsAtOnce = 3;
/** How often the disk is looked at. */
const lookEveryMs = 60_000;
/** An image that was asked for is not removed for so long, even if no container of it is there yet. */
const leaseMs = 15 * 60_000;

export interface ImageOptions {
  dir: string;
  insecureRegistries: readonly string[];
  registryAuthFile: string;
  pullDeadlineMs?: number;
  waterMarks?: Partial<WaterMarks>;
  /** Digests that containers of this host were made from, running or not. */
  inUse: () => Iterable<string>;
  onEvent?: (event: RuntimeEvent) => void;
  onProblem?: (what: string, error: unknown) => void;
}

type ProgressListener = (progress: PullProgress | null) => void;
interface Pull {
  digest: string;
  done: Promise<void>;
  listeners: Set<ProgressListener>;
  latest: PullProgress | null;
}

export class Images {
  readonly #dir: string;
  readonly #options: ImageOptions;
  readonly #storage: ImageStorage;
  readonly #marks: WaterMarks;
  readonly #deadlineMs: number;
  readonly #pulls = new Map<string, Pull>();
  /** Digest -> until when it is kept for who asked for it, ms since 1970. */
  readonly #leases = new Map<string, number>();
  #running = 0;
  readonly #waiting: (() => void)[] = [];
  /** The collection under way; there is one at a time. */
  #collecting: Promise<number> | null = null;
  #removing: Promise<void> | null = null;
  #removals = 0;
  #timer: NodeJS.Timeout | null = null;

  constructor(options: ImageOptions) {
    this.#dir = options.dir;
    this.#options = options;
    this.#storage = new ImageStorage(options.dir);
    this.#deadlineMs = options.pullDeadlineMs ?? 10 * 60_000;
    const { highPercent = 85, lowPercent = 75, maxBytes = null } = options.waterMarks ?? {};
    if (!(lowPercent > 0 && lowPercent <= highPercent && highPercent <= 100))
      throw new Error(
        `Water marks of the images' disk: ${lowPercent} % and ${highPercent} %; give 0 < low <= high <= 100.`,
      );
    this.#marks = { highPercent, lowPercent, maxBytes };
  }

  /** What holds the layers. */
  get dir(): string {
    return this.#dir;
  }

  /** Makes directories and settings and removes what killed pulls left. */
  async prepare(): Promise<void> {
    mkdirSync(`${this.#dir}/records`, { recursive: true, mode: 0o711 });
    await this.#storage.prepare();
  }

  /** From now on the disk is looked at and unused images go. Not before it is known what is in use. */
  watch(): void {
    this.#timer ??= setInterval(() => this.#collectInBackground(), lookEveryMs).unref();
    this.#collectInBackground();
  }

  async close(): Promise<void> {
    if (this.#timer) clearInterval(this.#timer);
    this.#timer = null;
    await this.#collecting?.catch(() => undefined);
  }

  /**
   * Pulls unless present; one pull per image however many ask. `onProgress` is called only when it is
   * pulled: with null at first, then about once a second. Throws RuntimeError `image-*`.
   */
  async ensure(repository: string, digest: string, onProgress?: ProgressListener): Promise<void> {
    if (!repositoryName.test(repository) || !sha256Digest.safeParse(digest).success)
      throw new RuntimeError(
        'image-not-found',
        `"${repository}@${digest}" is not an image's name with a sha256 digest.`,
      );
    this.#leases.set(digest, performance.now() + leaseMs);
    if (this.#find(digest)?.repositories.includes(repository)) return;
    const key = `${repository}@${digest}`;
    let pull = this.#pulls.get(key);
    if (!pull) {
      pull = this.#begin(repository, digest);
      this.#pulls.set(key, pull);
    }
    if (onProgress) {
      pull.listeners.add(onProgress);
      onProgress(pull.latest);
    }
    await pull.done;
    this.#leases.set(digest, performance.now() + leaseMs);
  }

  #begin(repository: string, digest: string): Pull {
    const listeners = new Set<ProgressListener>();
    const pull: Pull = { digest, listeners, latest: null, done: Promise.resolve() };
    pull.done = this.#queued(() => this.#pull(repository, digest, pull)).finally(() => {
      this.#pulls.delete(`${repository}@${digest}`);
      this.#collectInBackground();
    });
    return pull;
  }

  /** Layer directories for a start, topmost first; marks the image used. Throws when `ensure` has not brought it. */
  layersOf(repository: string, digest: string): string[] {
    const record = this.#find(digest);
    if (!record?.repositories.includes(repository))
      throw new RuntimeError(
        'image-not-found',
        `The image ${repository}@${digest} is not on this node.`,
      );
    const now = new Date();
    utimesSync(this.#recordFile(digest), now, now);
    return record.layers.map((layer) => `${this.#dir}/storage/${layer}`);
  }

  /** Directories of an image's layers, topmost first, for a container that was made from it. */
  layersInUse(digest: string): string[] {
    return (this.#find(digest)?.layers ?? []).map((layer) => `${this.#dir}/storage/${layer}`);
  }

  /** Digests present, most recently used first. */
  list(): string[] {
    return [...this.#used()].sort(([, a], [, b]) => b - a).map(([digest]) => digest);
  }

  async usage(): Promise<HostUsage['images']> {
    const layers = this.#storage.layers();
    return {
      count: this.#used().size,
      bytes: layers.reduce((sum, layer) => sum + layer.bytes, 0),
      disk: await this.#storage.disk(),
    };
  }

  /** Removes what nobody uses while the disk is fuller than it may be, and at least `atLeast` bytes; returns the bytes freed. */
  async collect(atLeast = 0): Promise<number> {
    while (this.#collecting) await this.#collecting.catch(() => undefined);
    this.#collecting = this.#collect(atLeast).finally(() => (this.#collecting = null));
    return this.#collecting;
  }

  #collectInBackground(): void {
    if (!this.#timer) return;
    this.collect().catch((error: unknown) =>
      this.#options.onProblem?.('removing unused images', error),
    );
  }

  async #collect(atLeast: number): Promise<number> {
    if (!existsSync(`${this.#dir}/storage`)) return 0;
    for (const [digest, until] of this.#leases)
      if (until < performance.now()) this.#leases.delete(digest);
    // What failed pulls left. It changes the index at once, so that none can start in between.
    if (this.#running === 0) await this.#storage.removeRemains();
    const disk = await this.#storage.disk();
    const images = this.#candidates();
    const layers = new Map(this.#storage.layers().map((layer) => [layer.id, layer.bytes]));
    const stored = [...layers.values()].reduce((sum, bytes) => sum + bytes, 0);
    const strays = images.filter((image) => !image.inUse && image.usedAt === 0).map(({ id }) => id);
    const wanted = Math.max(atLeast, bytesToFree(disk, stored, this.#marks));
    const plan = planImageRemoval(images, layers, wanted);
    let removed = 0;
    for (const id of new Set([...strays, ...plan.remove])) {
      const removal = this.#remove(id);
      if (!removal) continue;
      await removal;
      removed++;
    }
    if (removed === 0) return 0;
    const left = this.#storage.layers().reduce((sum, layer) => sum + layer.bytes, 0);
    const bytes = Math.max(0, stored - left);
    this.#emit({ type: 'images-removed', images: removed, bytes });
    return bytes;
  }

  /** Null when it is gone, or in use by now. */
  #remove(imageId: string): Promise<void> | null {
    const image = this.#candidates().find(({ id }) => id === imageId);
    if (!image || image.inUse) return null;
    // From here to the removal's start nothing waits: who asks for the image now pulls it anew.
    step('forget-image');
    for (const digest of image.digests) rmSync(this.#recordFile(digest), { force: true });
    this.#removals++;
    const removing = this.#storage.delete(imageId).finally(() => (this.#removing = null));
    this.#removing = removing;
    return removing;
  }

  /** Last used 0: no record speaks of it, since its pull was killed or did not bring what was asked for. */
  #candidates(): (RemovalCandidate & { digests: readonly string[] })[] {
    const used = this.#used();
    const needed = new Set([...this.#options.inUse(), ...this.#leases.keys()]);
    for (const { digest } of this.#pulls.values()) needed.add(digest);
    return this.#storage.images().map(({ id, layers, digests }) => ({
      id,
      layers,
      digests,
      usedAt: Math.max(0, ...digests.map((digest) => used.get(digest) ?? 0)),
      inUse: digests.some((digest) => needed.has(digest)),
    }));
  }

  async #queued(work: () => Promise<void>): Promise<void> {
    if (this.#running >= pullsAtOnce)
      await new Promise<void>((resolve) => this.#waiting.push(resolve));
    else this.#running++;
    try {
      await work();
    } finally {
      // Handed on, so that nobody slips in between.
      const next = this.#waiting.shift();
      if (next) next();
      else this.#running--;
    }
  }

  /** Once more when there was no room and some could be made, or when a removal may have taken its layers. */
  async #pull(repository: string, digest: string, pull: Pull): Promise<void> {
    const began = performance.now();
    const source = this.#source(repository, digest);
    const before = new Set(this.#storage.layers().map(({ id }) => id));
    for (let attempt = 1; ; attempt++) {
      const removals = this.#removals;
      try {
        await copyImage(this.#storage, source, {
          deadlineMs: this.#deadlineMs,
          endAt: began + this.#deadlineMs,
          onProgress: (progress) => this.#tell(pull, progress),
        });
        await this.#removing?.catch(() => undefined);
        step('record-image');
        this.#record(repository, digest);
        const bytes = this.#bytesOf(digest, before);
        this.#emit({ type: 'image-pulled', seconds: (performance.now() - began) / 1000, bytes });
        return;
      } catch (thrown) {
        const error = pullError(`${repository}@${digest}`, thrown, this.#deadlineMs);
        const { reason } = error;
        if (attempt === 1 && (await this.#isWorthAnotherTry(reason, source, removals))) continue;
        // What a refused pull brought is nobody's.
        if (!this.#find(digest)) this.#leases.delete(digest);
        this.#emit({ type: 'image-pull-failed', reason });
        throw error;
      }
    }
  }

  async #isWorthAnotherTry(
    reason: RuntimeError['reason'],
    source: ImageSource,
    removals: number,
  ): Promise<boolean> {
    if (reason === 'image-pull-failed') return this.#removals > removals;
    if (reason !== 'image-no-space') return false;
    const bytes = await roomFor(this.#storage, source);
    const { size, used } = await this.#storage.disk();
    // Nobody knows how much: then all that is unused goes.
    return (await this.collect(bytes === null ? Infinity : bytes - (size - used))) > 0;
  }

  #tell(pull: Pull, progress: PullProgress): void {
    pull.latest = progress;
    for (const listener of pull.listeners) listener(progress);
  }

  #emit(event: RuntimeEvent): void {
    this.#options.onEvent?.(event);
  }

  #source(repository: string, digest: string): ImageSource {
    const { insecureRegistries, registryAuthFile } = this.#options;
    return {
      repository,
      digest,
      insecure: insecureRegistries.includes(repository.split('/')[0] ?? ''),
      // Without credentials only what is public can be pulled.
      authFile: existsSync(registryAuthFile) ? registryAuthFile : null,
    };
  }

  /** What came over the wire for an image: its layers that were not there before. */
  #bytesOf(digest: string, before: ReadonlySet<string>): number {
    const layers = new Map(this.#storage.layers().map((layer) => [layer.id, layer]));
    const image = this.#storage.images().find(({ digests }) => digests.includes(digest));
    return (image?.layers ?? [])
      .filter((id) => !before.has(id))
      .reduce((sum, id) => sum + (layers.get(id)?.compressedBytes ?? 0), 0);
  }

  /** Writes down what a pull brought, after checking that it is what was asked for and runs here. */
  #record(repository: string, digest: string): void {
    const image = this.#storage.images().find(({ digests }) => digests.includes(digest));
    if (!image) throw new Error(`The image storage has no ${digest} after its pull.`);
    const name = `${repository}@${digest}`;
    if (!this.#storage.hasManifest(image.id, digest))
      throw new RuntimeError('image-corrupt', `The registry answered ${name} with other content.`);
    const its = this.#storage.platformOf(image.id);
    // An image that does not say is taken for ours: those made by hand often do not.
    if (its && `${its.os}/${its.architecture}` !== platform)
      throw new RuntimeError(
        'image-wrong-platform',
        `${name} is for ${its.os}/${its.architecture}, and this node is ${platform}.`,
      );
    if (image.layers.length === 0)
      throw new RuntimeError('image-pull-failed', `${name} has no layers.`);
    const known = this.#find(digest)?.repositories ?? [];
    const record: ImageRecord = {
      v: 1,
      digest,
      repositories: [...new Set([...known, repository])],
      layers: image.layers.map((id) => this.#storage.layerDirectory(id)),
    };
    const file = this.#recordFile(digest);
    writeFileSync(`${file}.new`, JSON.stringify(record));
    renameSync(`${file}.new`, file);
  }

  #find(digest: string): ImageRecord | null {
    const file = this.#recordFile(digest);
    if (!existsSync(file)) return null;
    const parsed = imageRecord.safeParse(parseJson(readFileSync(file, 'utf8')));
    return parsed.success ? parsed.data : null;
  }

  /** When each image on this host was last used, ms since 1970. */
  #used(): Map<string, number> {
    const records = `${this.#dir}/records`;
    if (!existsSync(records)) return new Map();
    return new Map(
      readdirSync(records)
        .filter((name) => /^[0-9a-f]{64}\.json$/.test(name))
        .map((name) => [`sha256:${name.slice(0, 64)}`, statSync(`${records}/${name}`).mtimeMs]),
    );
  }

  #recordFile(digest: string): string {
    return `${this.#dir}/records/${digest.slice('sha256:'.length)}.json`;
  }
}
