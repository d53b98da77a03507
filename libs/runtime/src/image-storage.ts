import { createHash } from 'node:crypto';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { rm, statfs } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import { z } from 'zod';
import { run } from './exec.ts';
import type { RunOptions } from './exec.ts';
import { inPrivateMounts } from './host-thread.ts';
import { processesWith, signal } from './processes.ts';
import { step } from './steps.ts';

const hexId = z.string().regex(/^[0-9a-f]{64}$/);
const layersFile = z.array(
  z
    .object({
      id: hexId,
      parent: z.string().optional(),
      incomplete: z.boolean().optional(),
      'compressed-diff-digest': z.string().optional(),
      'diff-digest': z.string().optional(),
      'diff-size': z.number().optional(),
      'compressed-size': z.number().optional(),
    })
    // What we do not know of a layer is written back with the rest.
    .loose(),
);
const imagesFile = z.array(
  z.object({ id: hexId, layer: z.string().optional(), names: z.array(z.string()).nullish() }),
);
const imageConfigFile = z.object({ architecture: z.string(), os: z.string() });

/** A remote image. */
export interface ImageSource {
  repository: string;
  digest: string;
  /** Its registry is reached by plain http. */
  insecure: boolean;
  authFile: string | null;
}

export interface StoredLayer {
  id: string;
  parent: string | null;
  /** Unpacked. */
  bytes: number;
  compressedBytes: number;
  /** Under which manifests name it: compressed and not. */
  digests: readonly string[];
}

export interface StoredImage {
  id: string;
  /** Digests that it was pulled by. */
  digests: readonly string[];
  /** Topmost first. */
  layers: readonly string[];
}

/** The name under which an image is in the storage. */
const nameOf = (digest: string): string => `localhost/${digest.replace(':', '-')}:pulled`;
const digestIn = (name: string): string | null => {
  const hex = /^localhost\/sha256-([0-9a-f]{64}):pulled$/.exec(name)?.[1];
  return hex === undefined ? null : `sha256:${hex}`;
};

/**
 * The containers/storage directory that skopeo writes and we read: its index, its layers, and what
 * killed pulls leave in it. Nothing of the machine's global container settings is read or changed.
 */
export class ImageStorage {
  readonly #dir: string;

  constructor(dir: string) {
    this.#dir = dir;
  }

  /** Makes directories and settings, ends what an agent before this one ran here, and removes its remains. */
  async prepare(): Promise<void> {
    for (const name of ['storage', 'run', 'tmp', 'settings', 'settings/registries.d'])
      mkdirSync(`${this.#dir}/${name}`, { recursive: true, mode: 0o711 });
    writeFileSync(
      `${this.#dir}/settings/storage.conf`,
      `[storage]\ndriver = "overlay"\nrunroot = "${this.#dir}/run"\ngraphroot = "${this.#dir}/storage"\n`,
    );
    // Signatures are not ours to judge yet: the digest that the API resolved is what binds us.
    writeFileSync(
      `${this.#dir}/settings/policy.json`,
      '{"default":[{"type":"insecureAcceptAnything"}]}\n',
    );
    writeFileSync(`${this.#dir}/settings/registries.conf`, '');
    // They die with their agent, but not at the same instant; one that still writes would spoil what we clean.
    const deadline = performance.now() + 10_000;
    for (;;) {
      const left = processesWith(`${this.#dir}/storage`);
      if (left.length === 0) break;
      if (performance.now() > deadline)
        throw new Error(`Process ${left[0]?.pid} survived SIGKILL.`);
      for (const process of left) signal(process, 9);
      await delay(5);
    }
    for (const name of readdirSync(`${this.#dir}/tmp`))
      rmSync(`${this.#dir}/tmp/${name}`, { recursive: true, force: true });
    await this.removeRemains();
  }

  images(): StoredImage[] {
    const parents = new Map(this.layers().map((layer) => [layer.id, layer.parent]));
    const chain = (top: string | undefined): string[] => {
      const layers: string[] = [];
      for (let id = top ?? null; id !== null && parents.has(id); id = parents.get(id) ?? null)
        layers.push(id);
      return layers;
    };
    return this.#read('overlay-images/images.json', imagesFile).map((image) => ({
      id: image.id,
      digests: (image.names ?? []).map(digestIn).filter((digest) => digest !== null),
      layers: chain(image.layer),
    }));
  }

  layers(): StoredLayer[] {
    return this.#read('overlay-layers/layers.json', layersFile)
      .filter((layer) => layer.incomplete !== true)
      .map((layer) => ({
        id: layer.id,
        parent: layer.parent === undefined || layer.parent === '' ? null : layer.parent,
        bytes: layer['diff-size'] ?? 0,
        compressedBytes: layer['compressed-size'] ?? layer['diff-size'] ?? 0,
        digests: [layer['compressed-diff-digest'], layer['diff-digest']].filter(
          (digest) => digest !== undefined,
        ),
      }));
  }

  /** Directory of a layer relative to the storage. */
  layerDirectory(id: string): string {
    const diff = `overlay/${id}/diff`;
    if (!existsSync(`${this.#dir}/storage/${diff}`))
      throw new Error(`The image storage lacks layer ${id}.`);
    return diff;
  }

  /** The file system that holds the storage, bytes. */
  async disk(): Promise<{ size: number; used: number }> {
    const { bsize, blocks, bavail } = await statfs(this.#dir);
    return { size: blocks * bsize, used: (blocks - bavail) * bsize };
  }

  /** An empty directory for one pull, which removes it. */
  makeTmp(): string {
    return mkdtempSync(`${this.#dir}/tmp/pull-`);
  }

  /** Whether the image was made from a manifest of that digest. A list is kept beside the manifest that was chosen from it. */
  hasManifest(imageId: string, digest: string): boolean {
    return this.#documents(imageId).some((file) => sha256(readFileSync(file)) === digest);
  }

  /** What the image says it is for; null when it does not say. */
  platformOf(imageId: string): { os: string; architecture: string } | null {
    // An image's id is the digest of its config.
    for (const file of this.#documents(imageId)) {
      const data = readFileSync(file);
      if (sha256(data) !== `sha256:${imageId}`) continue;
      const config = imageConfigFile.safeParse(parseJson(data.toString('utf8')));
      return config.success ? config.data : null;
    }
    return null;
  }

  #documents(imageId: string): string[] {
    const dir = `${this.#dir}/storage/overlay-images/${imageId}`;
    return readdirSync(dir)
      .map((name) => `${dir}/${name}`)
      .filter((file) => statSync(file).size <= 4 * 1024 * 1024);
  }

  /** Runs `skopeo copy` into the storage; it does not outlive the agent that wants it. Throws CommandError. */
  async copy(
    source: ImageSource,
    tmp: string,
    options: Pick<RunOptions, 'deadlineMs' | 'signal'>,
  ): Promise<void> {
    const { digest, insecure, authFile } = source;
    const args = [
      ...this.#common(tmp),
      'copy',
      '--quiet',
      ...(authFile === null ? [] : ['--src-authfile', authFile]),
      `--src-tls-verify=${!insecure}`,
      `docker://${source.repository}@${digest}`,
      this.#reference(nameOf(digest)),
    ];
    await this.#skopeo(args, tmp, options);
  }

  /** The manifest of a remote image, or a list of them, as it is. Throws CommandError. */
  async readManifest(source: ImageSource, tmp: string, signal?: AbortSignal): Promise<unknown> {
    const { repository, digest, insecure, authFile } = source;
    const args = [
      ...this.#common(tmp),
      'inspect',
      '--raw',
      ...(authFile === null ? [] : ['--authfile', authFile]),
      `--tls-verify=${!insecure}`,
      `docker://${repository}@${digest}`,
    ];
    return parseJson(
      (await this.#skopeo(args, tmp, { deadlineMs: 30_000, ...(signal && { signal }) })).stdout,
    );
  }

  /** Removes an image under all its names, and the layers that no other needs. */
  async delete(imageId: string): Promise<void> {
    step('delete-image');
    const tmp = `${this.#dir}/tmp`;
    await this.#skopeo([...this.#common(tmp), 'delete', this.#reference(`@${imageId}`)], tmp, {
      deadlineMs: 120_000,
    });
  }

  /**
   * Removes layers that belong to no image: a killed pull leaves them, complete or not, and skopeo
   * never looks at them again. Only while nothing else works on the storage; the index is changed
   * before this first waits for anything.
   */
  async removeRemains(): Promise<void> {
    step('remove-remains');
    const index = `${this.#dir}/storage/overlay-layers/layers.json`;
    const layers = this.#read('overlay-layers/layers.json', layersFile);
    const used = new Set(this.images().flatMap((image) => image.layers));
    const kept = layers.filter((layer) => used.has(layer.id));
    if (kept.length < layers.length) {
      writeFileSync(`${index}.new`, JSON.stringify(kept), { mode: 0o600 });
      renameSync(`${index}.new`, index);
    }
    const overlay = `${this.#dir}/storage/overlay`;
    const rubbish = `${this.#dir}/tmp/remains`;
    for (const name of names(overlay)) {
      if (!/^[0-9a-f]{64}/.test(name) || used.has(name)) continue;
      const link = readText(`${overlay}/${name}/link`);
      if (/^[A-Z0-9]+$/.test(link)) rmSync(`${overlay}/l/${link}`, { force: true });
      // Out of the way at once; what it holds may take a while to remove.
      mkdirSync(rubbish, { recursive: true });
      renameSync(`${overlay}/${name}`, `${rubbish}/${name}`);
    }
    for (const name of names(`${overlay}/l`))
      if (!existsSync(`${overlay}/l/${name}`)) rmSync(`${overlay}/l/${name}`, { force: true });
    for (const name of names(`${this.#dir}/storage/overlay-layers`)) {
      const id = /^([0-9a-f]{64})\./.exec(name)?.[1];
      if (id !== undefined && !used.has(id))
        rmSync(`${this.#dir}/storage/overlay-layers/${name}`, { force: true });
    }
    await rm(rubbish, { recursive: true, force: true });
  }

  #common(tmp: string): string[] {
    return [
      '--policy',
      `${this.#dir}/settings/policy.json`,
      '--registries.d',
      `${this.#dir}/settings/registries.d`,
      '--tmpdir',
      tmp,
    ];
  }

  #reference(image: string): string {
    return `containers-storage:[overlay@${this.#dir}/storage+${this.#dir}/run]${image}`;
  }

  /** In a throw-away mount namespace: the storage driver's mounts end with it. */
  #skopeo(args: readonly string[], tmp: string, options: RunOptions) {
    const env = {
      CONTAINERS_STORAGE_CONF: `${this.#dir}/settings/storage.conf`,
      CONTAINERS_REGISTRIES_CONF: `${this.#dir}/settings/registries.conf`,
      HOME: tmp,
      TMPDIR: tmp,
    };
    const mortal = ['--pdeathsig', 'KILL', 'skopeo', ...args];
    return inPrivateMounts(() => run('setpriv', mortal, { ...options, env }));
  }

  #read<T extends z.ZodType>(file: string, schema: T): z.infer<T> {
    const text = readText(`${this.#dir}/storage/${file}`);
    return schema.parse(text === '' ? [] : JSON.parse(text));
  }
}

const sha256 = (data: Buffer): string =>
  `sha256:${createHash('sha256').update(data).digest('hex')}`;

const names = (dir: string): string[] => (existsSync(dir) ? readdirSync(dir) : []);

function readText(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return '';
    throw error;
  }
}

export function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}
