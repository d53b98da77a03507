/**
 * Image references as people write them, and where each is looked for. Pure.
 *
 * - `127.0.0.1:5000/demo/hello:1` (the platform's registry): the tenant's own repositories only.
 * - `hello:1` (neither registry nor slash): the tenant's `hello` in the platform's registry, then
 *   Docker Hub's official image.
 * - `demo/hello:1` where `demo` is the tenant: the platform's registry, then Docker Hub.
 * - `owner/name:tag`: Docker Hub. `ghcr.io/owner/name:tag`: that registry.
 */
import { invalid, notFound, sha256Digest } from '@bulkhead/protocol';

const pathPart = /^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*$/;
const tagPattern = /^\w[\w.-]{0,127}$/;
const hostPattern =
  /^(?:[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)*|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?$/i;
const hub = 'docker.io';

export interface ImageReference {
  /** Host and perhaps port; `docker.io` for Docker Hub. */
  readonly registry: string;
  readonly path: string;
  /** What to ask for: a tag or, stronger, a digest. */
  readonly version: string;
  readonly byDigest: boolean;
  /** In the platform's own registry. */
  readonly ours: boolean;
}

export interface Home {
  /** REGISTRY_HOST */
  readonly registry: string;
  readonly tenant: string;
}

/**
 * Where to look for what somebody wrote, in this order.
 * @throws DomainError INVALID when it is no reference; NOT_FOUND for another tenant's repository.
 */
export function placesOf(written: string, home: Home): readonly ImageReference[] {
  const { host, path, tag, digest } = split(written);
  const version = { version: digest ?? tag ?? 'latest', byDigest: digest !== null };
  const at = (registry: string, where: string): ImageReference => ({
    registry,
    path: where,
    ...version,
    ours: registry === home.registry,
  });

  if (host === home.registry) {
    if (!path.startsWith(`${home.tenant}/`)) throw notFound(`Image ${written}`);
    return [at(home.registry, path)];
  }
  if (host !== null && !isHub(host)) return [at(host, path)];
  const onHub = at(hub, path.includes('/') ? path : `library/${path}`);
  if (host !== null) return [onHub];
  if (!path.includes('/')) return [at(home.registry, `${home.tenant}/${path}`), onHub];
  return path.startsWith(`${home.tenant}/`) ? [at(home.registry, path), onHub] : [onHub];
}

function isHub(host: string): boolean {
  return host === hub || host === 'index.docker.io' || host === 'registry-1.docker.io';
}

function split(written: string) {
  const refuse = (why: string) =>
    invalid(
      `"${written.slice(0, 200)}" is not an image reference: ${why}. Write it like hello:1.2 or ghcr.io/owner/name:tag`,
    );
  if (written.length > 512) throw refuse('it is too long');
  const [named = '', digest, ...more] = written.trim().split('@');
  if (more.length > 0) throw refuse('it has more than one digest');
  if (digest !== undefined && !sha256Digest.safeParse(digest).success) {
    throw refuse('the digest must be sha256: and 64 hexadecimal digits');
  }
  const slash = named.indexOf('/');
  const first = slash === -1 ? '' : named.slice(0, slash);
  const hasHost = first.includes('.') || first.includes(':') || first === 'localhost';
  const rest = hasHost ? named.slice(slash + 1) : named;
  const colon = rest.lastIndexOf(':');
  const path = colon === -1 ? rest : rest.slice(0, colon);
  const tag = colon === -1 ? null : rest.slice(colon + 1);
  if (hasHost && !hostPattern.test(first)) throw refuse('the registry is not a host name');
  if (tag !== null && !tagPattern.test(tag))
    throw refuse('the tag has characters that are not allowed');
  if (path.length > 255 || !path.split('/').every((part) => pathPart.test(part))) {
    throw refuse('the name has characters that are not allowed; use lower case');
  }
  return { host: hasHost ? first.toLowerCase() : null, path, tag, digest: digest ?? null };
}
