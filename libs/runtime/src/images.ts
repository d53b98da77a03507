import { createHash } from 'node:crypto';
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
import { CommandError, run } from './exec.ts';
import { inPrivateMounts } from './host-thread.ts';
import { RuntimeError } from './runtime.ts';

/**
 * Images of this host: pulled by digest with skopeo into a containers/storage of our own, whose
 * layer directories containers share. Nothing of the machine's global container settings is read
 * or changed. An image counts as present for a repository only after a pull from that repository
 * went through, so that knowing another tenant's digest opens nothing.
 */
const imageRecord = z.object({
  v: z.literal(1),
  digest: sha256Digest,
  repositories: z.array(z.string()),
  /** Directories of the layers relative to the storage, topmost first. */
  layers: z.array(z.string()),
});
type ImageRecord = z.infer<typeof imageRecord>;

const storageLayers = z.array(
  z.object({ id: z.string().regex(/^[0-9a-f]{64}$/), parent: z.string().optional() }),
);
const storageImages = z.array(
  z.object({
    id: z.string().regex(/^[0-9a-f]{64}$/),
    layer: z.string().optional(),
    names: z.array(z.string()).nullish(),
  }),
);

const repositoryName = /^[A-Za-z0-9][A-Za-z0-9.:_/-]*$/;
const pullDeadlineMs = 10 * 60_000;
const pullsAtOnce = 3;

export interface ImageOptions {
  dir: string;
  insecureRegistries: readonly string[];
  registryAuthFile: string;
}

export class Images {
  readonly #dir: string;
  readonly #options: ImageOptions;
  readonly #pulls = new Map<string, Promise<void>>();
  #running = 0;
  readonly #waiting: (() => void)[] = [];

  constructor(options: ImageOptions) {
    this.#dir = options.dir;
    this.#options = options;
  }

  /** What holds the layers. */
  get dir(): string {
    return this.#dir;
  }

  /** Makes directories and settings. */
  prepare(): void {
    for (const name of ['storage', 'run', 'records', 'tmp', 'settings', 'settings/registries.d'])
      mkdirSync(`${this.#dir}/${name}`, { recursive: true, mode: 0o711 });
    writeFileSync(
      `${this.#dir}/settings/storage.conf`,
      `[storage]\ndriver = "overlay"\nrunroot = "${this.#dir}/run"\ngraphroot = "${this.#dir}/storage"\n`,
    );
    // What a killed pull left.
    for (const name of readdirSync(`${this.#dir}/tmp`))
      rmSync(`${this.#dir}/tmp/${name}`, { recursive: true, force: true });
    // Signatures are not ours to judge yet: the digest that the API resolved is what binds us.
    writeFileSync(
      `${this.#dir}/settings/policy.json`,
      '{"default":[{"type":"insecureAcceptAnything"}]}\n',
    );
    writeFileSync(`${this.#dir}/settings/registries.conf`, '');
  }

  /** Pulls unless present; one pull per image however many ask. Throws RuntimeError `image-*`. */
  async ensure(repository: string, digest: string): Promise<void> {
    if (!repositoryName.test(repository) || !sha256Digest.safeParse(digest).success)
      throw new RuntimeError(
        'image-not-found',
        `"${repository}@${digest}" is not an image's name with a sha256 digest.`,
      );
    const record = this.#find(digest);
    if (record?.repositories.includes(repository)) return;
    const key = `${repository}@${digest}`;
    let pull = this.#pulls.get(key);
    if (!pull) {
      pull = this.#queued(() => this.#pull(repository, digest)).finally(() =>
        this.#pulls.delete(key),
      );
      this.#pulls.set(key, pull);
    }
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

  /** Digests present, most recently used first. */
  list(): string[] {
    const records = `${this.#dir}/records`;
    if (!existsSync(records)) return [];
    return readdirSync(records)
      .filter((name) => /^[0-9a-f]{64}\.json$/.test(name))
      .map((name) => ({
        digest: `sha256:${name.slice(0, 64)}`,
        used: statSync(`${records}/${name}`).mtimeMs,
      }))
      .sort((a, b) => b.used - a.used)
      .map(({ digest }) => digest);
  }

  async #queued(work: () => Promise<void>): Promise<void> {
    if (this.#running >= pullsAtOnce)
      await new Promise<void>((resolve) => this.#waiting.push(resolve));
    this.#running++;
    try {
      await work();
    } finally {
      this.#running--;
      this.#waiting.shift()?.();
    }
  }

  async #pull(repository: string, digest: string): Promise<void> {
    const registry = repository.split('/')[0] ?? '';
    const insecure = this.#options.insecureRegistries.includes(registry);
    const authFile = this.#options.registryAuthFile;
    const name = `localhost/${digest.replace(':', '-')}:pulled`;
    const args = [
      '--policy',
      `${this.#dir}/settings/policy.json`,
      '--registries.d',
      `${this.#dir}/settings/registries.d`,
      '--tmpdir',
      `${this.#dir}/tmp`,
      'copy',
      '--quiet',
      // Without credentials only what is public can be pulled.
      ...(existsSync(authFile) ? ['--src-authfile', authFile] : []),
      `--src-tls-verify=${!insecure}`,
      `docker://${repository}@${digest}`,
      `containers-storage:[overlay@${this.#dir}/storage+${this.#dir}/run]${name}`,
    ];
    const env = {
      CONTAINERS_STORAGE_CONF: `${this.#dir}/settings/storage.conf`,
      CONTAINERS_REGISTRIES_CONF: `${this.#dir}/settings/registries.conf`,
      HOME: `${this.#dir}/tmp`,
      TMPDIR: `${this.#dir}/tmp`,
    };
    try {
      // In a throw-away mount namespace: the storage driver's mounts end with it.
      // A pull does not outlive the agent that wants it.
      const mortal = ['--pdeathsig', 'KILL', 'skopeo', ...args];
      await inPrivateMounts(() => run('setpriv', mortal, { env, deadlineMs: pullDeadlineMs }));
    } catch (error) {
      throw pullError(`${repository}@${digest}`, registry, error);
    }
    const known = this.#find(digest)?.repositories ?? [];
    this.#write({
      v: 1,
      digest,
      repositories: [...known, repository],
      layers: this.#readLayers(name, digest),
    });
  }

  /** Finds an image's layers in the storage's own index, after checking that its manifest is the one asked for. */
  #readLayers(name: string, digest: string): string[] {
    const read = (file: string): unknown =>
      JSON.parse(readFileSync(`${this.#dir}/storage/${file}`, 'utf8'));
    const image = storageImages
      .parse(read('overlay-images/images.json'))
      .find((i) => i.names?.includes(name));
    if (!image) throw new Error(`The image storage has no ${name} after its pull.`);
    if (!this.#hasManifest(image.id, digest))
      throw new RuntimeError(
        'image-pull-failed',
        `The registry answered ${digest} with other content.`,
      );
    const parents = new Map(
      storageLayers.parse(read('overlay-layers/layers.json')).map((l) => [l.id, l.parent]),
    );
    const layers: string[] = [];
    for (let id = image.layer; id; id = parents.get(id)) {
      const diff = `overlay/${id}/diff`;
      if (!parents.has(id) || !existsSync(`${this.#dir}/storage/${diff}`))
        throw new Error(`The image storage lacks layer ${id}.`);
      layers.push(diff);
    }
    if (layers.length === 0)
      throw new RuntimeError('image-pull-failed', 'The image has no layers.');
    return layers;
  }

  /** A manifest list is kept beside the manifest that was chosen from it, so either may carry the digest. */
  #hasManifest(imageId: string, digest: string): boolean {
    const dir = `${this.#dir}/storage/overlay-images/${imageId}`;
    return readdirSync(dir)
      .filter((file) => statSync(`${dir}/${file}`).size <= 4 * 1024 * 1024)
      .some(
        (file) =>
          `sha256:${createHash('sha256')
            .update(readFileSync(`${dir}/${file}`))
            .digest('hex')}` === digest,
      );
  }

  #recordFile(digest: string): string {
    return `${this.#dir}/records/${digest.slice('sha256:'.length)}.json`;
  }

  #find(digest: string): ImageRecord | null {
    const file = this.#recordFile(digest);
    if (!existsSync(file)) return null;
    const parsed = imageRecord.safeParse(parseJson(readFileSync(file, 'utf8')));
    return parsed.success ? parsed.data : null;
  }

  #write(record: ImageRecord): void {
    const file = this.#recordFile(record.digest);
    writeFileSync(`${file}.new`, JSON.stringify(record));
    renameSync(`${file}.new`, file);
  }
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

/** What skopeo says, in words for the tenant. */
function pullError(image: string, registry: string, error: unknown): Error {
  if (!(error instanceof CommandError)) return error as Error;
  const said = error.stderr.toLowerCase();
  const has = (...texts: string[]): boolean => texts.some((text) => said.includes(text));
  const options = { cause: error };
  if (
    has(
      'manifest unknown',
      'name unknown',
      'manifest for',
      'status 404',
      '404 (not found)',
      'no such host',
    )
  )
    return has('no such host')
      ? new RuntimeError(
          'image-pull-failed',
          `The registry ${registry} does not exist (its name has no address).`,
          options,
        )
      : new RuntimeError('image-not-found', `The registry has no image ${image}.`, options);
  if (
    has(
      'unauthorized',
      'authentication required',
      'access to the resource is denied',
      'denied:',
      '403 (forbidden)',
    )
  )
    return new RuntimeError(
      'image-unauthorised',
      `The registry ${registry} does not let this node pull ${image}.`,
      options,
    );
  if (error.timedOut)
    return new RuntimeError(
      'image-pull-failed',
      `Pulling ${image} took longer than ${pullDeadlineMs / 60_000} minutes.`,
      options,
    );
  if (
    has(
      'connection refused',
      'i/o timeout',
      'no route to host',
      'network is unreachable',
      'tls handshake',
    )
  )
    return new RuntimeError(
      'image-pull-failed',
      `The registry ${registry} cannot be reached.`,
      options,
    );
  if (has('no space left'))
    return new RuntimeError(
      'image-pull-failed',
      'The node has no disk space left for the image.',
      options,
    );
  if (has('no image found in manifest list'))
    return new RuntimeError(
      'image-pull-failed',
      `${image} has no variant for this node's architecture.`,
      options,
    );
  return new RuntimeError(
    'image-pull-failed',
    `Pulling ${image} from ${registry} failed.`,
    options,
  );
}
