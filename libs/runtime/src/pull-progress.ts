import { z } from 'zod';
import type { PullProgress } from './runtime.ts';

const digestAndSize = z.object({ digest: z.string(), size: z.number().int().min(0) });
const layeredManifest = z.object({ layers: z.array(digestAndSize) });
const manifestList = z.object({
  manifests: z.array(
    z.object({
      digest: z.string(),
      platform: z.object({ architecture: z.string(), os: z.string() }).optional(),
    }),
  ),
});

export type ManifestLayer = z.infer<typeof digestAndSize>;

/** Layers that a manifest names, or the digest of the manifest to read instead; null: neither. */
export function readManifestLayers(
  manifest: unknown,
  architecture: string,
): { layers: ManifestLayer[] } | { follow: string } | null {
  const layered = layeredManifest.safeParse(manifest);
  if (layered.success) return { layers: layered.data.layers };
  const list = manifestList.safeParse(manifest);
  const mine = list.data?.manifests.find(
    ({ platform }) => platform?.os === 'linux' && platform.architecture === architecture,
  );
  return mine ? { follow: mine.digest } : null;
}

/**
 * Layers count when they are in the storage, or when their download is complete: skopeo keeps the
 * downloads in files of its own numbering, so a file of a layer's size is taken for that layer.
 */
export function measureProgress(
  layers: readonly ManifestLayer[],
  stored: ReadonlySet<string>,
  downloads: readonly number[],
): PullProgress {
  const missing = layers.filter((layer) => !stored.has(layer.digest));
  const sizes = new Map<number, number>();
  for (const { size } of missing) sizes.set(size, (sizes.get(size) ?? 0) + 1);
  let downloaded = 0;
  for (const size of downloads) {
    const left = sizes.get(size) ?? 0;
    if (left === 0) continue;
    sizes.set(size, left - 1);
    downloaded++;
  }
  const sum = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0);
  const bytesTotal = sum(layers.map((layer) => layer.size));
  const bytesStored = bytesTotal - sum(missing.map((layer) => layer.size));
  return {
    layersDone: layers.length - missing.length + downloaded,
    layersTotal: layers.length,
    bytesDone: Math.min(bytesTotal, bytesStored + sum(downloads)),
    bytesTotal,
  };
}
