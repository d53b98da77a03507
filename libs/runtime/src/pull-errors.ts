import { CommandError } from './exec.ts';
import { RuntimeError } from './runtime.ts';

/** What skopeo says of a pull that failed, in order: the first that fits is told. */
const meanings: readonly {
  said: RegExp;
  reason: RuntimeError['reason'];
  message: (image: string, registry: string) => string;
}[] = [
  {
    said: /no such host|server misbehaving|temporary failure in name resolution/i,
    reason: 'registry-unreachable',
    message: (_, registry) => `The registry ${registry} cannot be found: its name has no address.`,
  },
  {
    said: /no space left|disk quota exceeded/i,
    reason: 'image-no-space',
    message: (image) => `The node has no disk space left for ${image}.`,
  },
  {
    said: /digest did not match|does not match provided manifest digest|gzip: invalid|invalid tar header|zlib: invalid|magic number mismatch|invalid checksum|corrupt/i,
    reason: 'image-corrupt',
    message: (image, registry) =>
      `The registry ${registry} answered with other content than the digests of ${image} say: push it again.`,
  },
  {
    said: /no image found in (manifest list|image index)/i,
    reason: 'image-wrong-platform',
    message: (image) => `${image} has no variant for this node's platform (${platform}).`,
  },
  {
    said: /unauthorized|authentication required|access to the resource is denied|denied:|403 \(forbidden\)|401 \(unauthorized\)/i,
    reason: 'image-unauthorised',
    message: (image, registry) => `The registry ${registry} does not let this node pull ${image}.`,
  },
  {
    said: /manifest unknown|name unknown|blob unknown|status 404|404 \(not found\)/i,
    reason: 'image-not-found',
    message: (image, registry) =>
      `The registry ${registry} has no image ${image}, or not all of it.`,
  },
  {
    said: /connection refused|connection reset|i\/o timeout|no route to host|network is unreachable|tls handshake|x509:|server gave http response|unexpected eof|\beof$/im,
    reason: 'registry-unreachable',
    message: (_, registry) => `The registry ${registry} cannot be reached, or breaks off.`,
  },
];

/** In the words of image platforms. */
export const architecture =
  new Map<string, string>([
    ['x64', 'amd64'],
    ['ia32', '386'],
  ]).get(process.arch) ?? process.arch;
export const platform = `linux/${architecture}`;

/** For the tenant; skopeo's own words, which hold paths of the host, stay in `cause`. */
export function pullError(image: string, error: unknown, deadlineMs: number): RuntimeError {
  const registry = image.split('/')[0] ?? '';
  if ((error as NodeJS.ErrnoException).code === 'ENOSPC') return noSpace(image, error);
  if (error instanceof RuntimeError) return error;
  const options = { cause: error };
  if (error instanceof CommandError && error.timedOut)
    return new RuntimeError(
      'image-pull-failed',
      `Pulling ${image} took longer than ${duration(deadlineMs)}.`,
      options,
    );
  const text = error instanceof CommandError ? error.stderr : '';
  const found = meanings.find(({ said }) => said.test(text));
  if (found) return new RuntimeError(found.reason, found.message(image, registry), options);
  return new RuntimeError(
    'image-pull-failed',
    `Pulling ${image} from ${registry} failed.`,
    options,
  );
}

export const noSpace = (image: string, cause: unknown): RuntimeError =>
  new RuntimeError('image-no-space', `The node has no disk space left for ${image}.`, { cause });

const duration = (ms: number): string =>
  ms >= 60_000 ? `${Math.round(ms / 60_000)} minutes` : `${Math.round(ms / 1000)} seconds`;
