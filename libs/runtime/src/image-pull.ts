import { globSync, statSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import { CommandError } from './exec.ts';
import type { ImageSource, ImageStorage } from './image-storage.ts';
import { architecture, noSpace } from './pull-errors.ts';
import { measureProgress, readManifestLayers } from './pull-progress.ts';
import type { ManifestLayer } from './pull-progress.ts';
import type { PullProgress } from './runtime.ts';
import { step } from './steps.ts';

const lookEveryMs = 1000;
/** A pull ends before the file system has less than this share left: others write there too. */
const reserveShare = 0.03;
/** Downloads and unpacked layers together, in sizes of the compressed layers; most need less. */
const unpackedFactor = 4;

export interface CopyOptions {
  /** The whole time that a pull may take, for its error. */
  deadlineMs: number;
  /** By `performance.now()`. */
  endAt: number;
  /** About once a second, once the sizes are known: what is quick asks the registry for nothing more. */
  onProgress: (progress: PullProgress) => void;
}

/** Copies a remote image into the storage, and leaves nothing but whole layers when it fails. */
export async function copyImage(
  storage: ImageStorage,
  source: ImageSource,
  options: CopyOptions,
): Promise<void> {
  step('make-pull-directory');
  const tmp = storage.makeTmp();
  const stop = new AbortController();
  const ended = new AbortController();
  const watching = watch(storage, source, tmp, stop, ended.signal, options.onProgress);
  try {
    step('copy-image');
    await storage.copy(source, tmp, {
      deadlineMs: Math.max(1, options.endAt - performance.now()),
      signal: stop.signal,
    });
  } catch (error) {
    if (!stop.signal.aborted) throw error;
    throw noSpace(`${source.repository}@${source.digest}`, error);
  } finally {
    ended.abort();
    await watching;
    step('remove-pull-directory');
    // Before anybody looks at the disk again: what it holds is no longer needed.
    await rm(tmp, { recursive: true, force: true });
  }
}

async function watch(
  storage: ImageStorage,
  source: ImageSource,
  tmp: string,
  stop: AbortController,
  ended: AbortSignal,
  onProgress: CopyOptions['onProgress'],
): Promise<void> {
  let layers: Promise<ManifestLayer[] | null> | null = null;
  for (;;) {
    await delay(lookEveryMs, undefined, { signal: ended, ref: false }).catch(() => undefined);
    if (ended.aborted) return;
    const { size, used } = await storage.disk();
    if (size - used < size * reserveShare) return stop.abort();
    layers ??= readLayers(storage, source, tmp, ended);
    const known = await Promise.race([layers, aborted(ended)]);
    if (known === null || ended.aborted) continue;
    const stored = new Set(storage.layers().flatMap((layer) => layer.digests));
    onProgress(measureProgress(known, stored, downloadSizes(tmp)));
  }
}

const aborted = (signal: AbortSignal): Promise<null> =>
  new Promise((resolve) => {
    if (signal.aborted) resolve(null);
    signal.addEventListener('abort', () => resolve(null), { once: true });
  });

/** Bytes that a pull may need at its peak; null when the registry does not tell. */
export async function roomFor(storage: ImageStorage, source: ImageSource): Promise<number | null> {
  const tmp = storage.makeTmp();
  try {
    const layers = await readLayers(storage, source, tmp);
    return layers && layers.reduce((sum, layer) => sum + layer.size, 0) * unpackedFactor;
  } finally {
    await rm(tmp, { recursive: true, force: true });
  }
}

/** Of the variant for this host; null when it cannot be told, which the pull itself explains better. */
async function readLayers(
  storage: ImageStorage,
  source: ImageSource,
  tmp: string,
  ended?: AbortSignal,
): Promise<ManifestLayer[] | null> {
  try {
    const first = readManifestLayers(await storage.readManifest(source, tmp, ended), architecture);
    if (first === null || 'layers' in first) return first?.layers ?? null;
    const chosen = { ...source, digest: first.follow };
    const next = readManifestLayers(await storage.readManifest(chosen, tmp, ended), architecture);
    return next && 'layers' in next ? next.layers : null;
  } catch (error) {
    if (error instanceof CommandError) return null;
    throw error;
  }
}

/** skopeo keeps each download in a file until its layer is unpacked. It may end between two looks here. */
function downloadSizes(tmp: string): number[] {
  return globSync(`${tmp}/storage*/*`).flatMap((file) => {
    const stat = statSync(file, { throwIfNoEntry: false });
    return stat?.isFile() ? [stat.size] : [];
  });
}
