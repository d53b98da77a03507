import { createHash } from 'node:crypto';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { gzipSync } from 'node:zlib';

/** What goes wrong with the second layer's blob, or with everything. */
export type Fault = 'bad bytes' | 'cut short' | 'breaks off' | 'hangs' | 'unauthorised';

/** A registry with one image of two layers that can misbehave; skopeo talks to it as to any other. */
export async function startFaultyRegistry(architecture: string, layers: readonly Buffer[]) {
  const blobs = new Map<string, Buffer>();
  const put = (data: Buffer) => {
    blobs.set(sha256(data), data);
    return { digest: sha256(data), size: data.length };
  };
  const packed = layers.map((layer) => put(gzipSync(layer, { level: 1 })));
  const config = put(
    Buffer.from(
      JSON.stringify({
        architecture,
        os: 'linux',
        config: {},
        rootfs: { type: 'layers', diff_ids: layers.map(sha256) },
      }),
    ),
  );
  const type = 'application/vnd.oci.image.manifest.v1+json';
  const manifest = Buffer.from(
    JSON.stringify({
      schemaVersion: 2,
      mediaType: type,
      config: { mediaType: 'application/vnd.oci.image.config.v1+json', ...config },
      layers: packed.map((layer) => ({
        mediaType: 'application/vnd.oci.image.layer.v1.tar+gzip',
        ...layer,
      })),
    }),
  );
  const state: { fault: Fault | null; requests: number } = { fault: null, requests: 0 };
  const server = createServer((request, response) => {
    state.requests++;
    const url = request.url ?? '';
    if (state.fault === 'unauthorised') return response.writeHead(401).end();
    if (url === '/v2/') return response.end('{}');
    if (url.includes('/manifests/')) return response.setHeader('content-type', type).end(manifest);
    const digest = url.slice(url.lastIndexOf('/') + 1);
    const blob = blobs.get(digest);
    if (!blob) return response.writeHead(404).end();
    const half = blob.subarray(0, blob.length >> 1);
    const bad = digest === packed.at(-1)?.digest ? state.fault : null;
    if (bad === 'cut short') return response.end(half);
    response.setHeader('content-length', blob.length);
    if (bad === 'breaks off') return response.write(half, () => response.destroy());
    if (bad === 'hangs') return response.write(half);
    const wrong = Buffer.from(blob);
    wrong[wrong.length >> 1] = (wrong[wrong.length >> 1] ?? 0) ^ 255;
    return response.end(bad === 'bad bytes' ? wrong : blob);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const host = `127.0.0.1:${(server.address() as AddressInfo).port}`;
  return {
    host,
    state,
    image: { repository: `${host}/test/app`, digest: sha256(manifest) },
    close: () => {
      server.close();
      server.closeAllConnections();
    },
  };
}

const sha256 = (data: Buffer): string =>
  `sha256:${createHash('sha256').update(data).digest('hex')}`;
