import { createHash } from 'node:crypto';
import { copyFile, link, mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Layer } from './layer.ts';

/** The part of an image's config that says how it is run. */
export interface ImageConfig {
  Env?: string[];
  Cmd?: string[];
  Entrypoint?: string[];
  User?: string;
  WorkingDir?: string;
  ExposedPorts?: Record<string, object>;
  Labels?: Record<string, string>;
}

/**
 * Writes an image as an OCI layout with one manifest, which is what `skopeo copy oci:<dir>` takes.
 * Nothing in it depends on when it is made. Gives the manifest's digest.
 */
export async function writeLayout(
  dir: string,
  config: ImageConfig,
  layers: readonly Layer[],
): Promise<string> {
  const blobs = join(dir, 'blobs/sha256');
  await mkdir(blobs, { recursive: true });
  for (const layer of layers) {
    const target = join(blobs, layer.digest.slice('sha256:'.length));
    // A link costs nothing; the cache may be on another disk.
    await link(layer.file, target).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== 'EEXIST') return copyFile(layer.file, target);
    });
  }
  const writeBlob = async (mediaType: string, value: object) => {
    const bytes = Buffer.from(JSON.stringify(value));
    const hex = createHash('sha256').update(bytes).digest('hex');
    await writeFile(join(blobs, hex), bytes);
    return { mediaType, digest: `sha256:${hex}`, size: bytes.length };
  };
  const configBlob = await writeBlob('application/vnd.oci.image.config.v1+json', {
    created: '1970-01-01T00:00:00Z',
    architecture: process.arch === 'x64' ? 'amd64' : process.arch,
    os: 'linux',
    config,
    rootfs: { type: 'layers', diff_ids: layers.map(({ diffId }) => diffId) },
    history: layers.map(() => ({
      created: '1970-01-01T00:00:00Z',
      created_by: 'bulkhead examples/build.ts',
    })),
  });
  const manifest = await writeBlob('application/vnd.oci.image.manifest.v1+json', {
    schemaVersion: 2,
    mediaType: 'application/vnd.oci.image.manifest.v1+json',
    config: configBlob,
    layers: layers.map(({ digest, size }) => ({
      mediaType: 'application/vnd.oci.image.layer.v1.tar+gzip',
      digest,
      size,
    })),
  });
  await writeFile(
    join(dir, 'index.json'),
    JSON.stringify({ schemaVersion: 2, manifests: [manifest] }),
  );
  await writeFile(join(dir, 'oci-layout'), JSON.stringify({ imageLayoutVersion: '1.0.0' }));
  return manifest.digest;
}
