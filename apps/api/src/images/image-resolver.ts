/**
 * From what a user wrote to what a release pins: the digest of one manifest for linux/amd64, its
 * config and its size, as the registry has them now. What runs later is that digest, whatever
 * happens to the tag.
 */
import { z } from 'zod';
import {
  DomainError,
  invalid,
  sha256Digest,
  unavailable,
  type ImageConfig,
} from '@bulkhead/protocol';
import type { ResolvedImage } from '@bulkhead/tenancy';
import { ForbiddenAddress, TooLarge } from './https-get.ts';
import { placesOf, type ImageReference } from './reference.ts';
import { RegistryError, RepositoryReader, type RegistryClientOptions } from './registry-client.ts';

/** For all requests of one reference together. Milliseconds. */
const deadlineMs = 20_000;

const descriptor = z.object({ digest: sha256Digest, size: z.number().int().min(0) });
const manifest = z.object({ config: descriptor, layers: z.array(descriptor).max(1000) });
const index = z.object({
  manifests: z
    .array(
      descriptor.extend({
        platform: z
          .object({ os: z.string(), architecture: z.string(), variant: z.string().optional() })
          .optional(),
      }),
    )
    .max(1000),
});
const strings = z.array(z.string()).nullish();
const config = z.object({
  os: z.string(),
  architecture: z.string(),
  config: z
    .object({
      Entrypoint: strings,
      Cmd: strings,
      Env: strings,
      WorkingDir: z.string().nullish(),
      User: z.string().nullish(),
      ExposedPorts: z.record(z.string(), z.unknown()).nullish(),
      StopSignal: z.string().nullish(),
    })
    .nullish(),
});

export interface ImageResolverOptions extends RegistryClientOptions {
  /** REGISTRY_HOST */
  registryHost: string;
}

export class ImageResolver {
  constructor(private readonly options: ImageResolverOptions) {}

  /**
   * @param tenant slug; of the platform's registry only its repositories are seen.
   * @throws DomainError NOT_FOUND, INVALID (no reference, wrong platform, closed address) or
   *   UNAVAILABLE (the registry does not answer), saying what to do.
   */
  async resolve(written: string, tenant: string): Promise<ResolvedImage> {
    const home = { registry: this.options.registryHost, tenant };
    const places = placesOf(written, home);
    const failures: { place: ImageReference; error: RegistryError }[] = [];
    for (const place of places) {
      try {
        return { reference: written, ...(await this.#read(place)) };
      } catch (error) {
        const refusal = toRegistryError(error);
        failures.push({ place, error: refusal });
        // Only an image that is not there may be elsewhere; else the tenant would get another than meant.
        if (refusal.refusal !== 'not-found') break;
      }
    }
    throw explain(written, tenant, this.options.registryHost, failures);
  }

  async #read(place: ImageReference): Promise<Omit<ResolvedImage, 'reference'>> {
    const reader = new RepositoryReader(this.options, place, AbortSignal.timeout(deadlineMs));
    const top = await reader.manifest(place.version);
    const asIndex = index.safeParse(top.json);
    const chosen = asIndex.success
      ? await reader.manifest(pickPlatform(asIndex.data.manifests))
      : top;
    const parts = manifest.safeParse(chosen.json);
    if (!parts.success) {
      throw new RegistryError(
        'invalid',
        'its manifest is of a kind that is not supported; push it again with a current client',
      );
    }
    const described = config.safeParse(await reader.config(parts.data.config.digest));
    if (!described.success) throw new RegistryError('invalid', 'it is not a container image');
    const { os, architecture } = described.data;
    if (os !== 'linux' || architecture !== 'amd64') throw wrongPlatform(`${os}/${architecture}`);
    return {
      repository: `${place.registry}/${place.path}`,
      digest: chosen.digest,
      size: parts.data.layers.reduce((sum, layer) => sum + layer.size, parts.data.config.size),
      config: toImageConfig(described.data.config ?? {}),
    };
  }
}

function pickPlatform(manifests: z.infer<typeof index>['manifests']): string {
  const fitting = manifests.find(
    ({ platform }) => platform?.os === 'linux' && platform.architecture === 'amd64',
  );
  if (fitting) return fitting.digest;
  const offered = manifests.flatMap(({ platform }) =>
    platform && platform.os !== 'unknown' ? [`${platform.os}/${platform.architecture}`] : [],
  );
  throw wrongPlatform([...new Set(offered)].slice(0, 10).join(', ') || 'nothing');
}

function wrongPlatform(offered: string): RegistryError {
  return new RegistryError(
    'invalid',
    `it is built for ${offered}, the nodes are linux/amd64; build it with --platform linux/amd64`,
  );
}

function toImageConfig(from: NonNullable<z.infer<typeof config>['config']>): ImageConfig {
  const ports = Object.keys(from.ExposedPorts ?? {}).flatMap((key) => {
    const [, port, protocol = 'tcp'] = /^(\d{1,5})(?:\/(\w+))?$/.exec(key) ?? [];
    return port !== undefined && protocol === 'tcp' ? [Number(port)] : [];
  });
  return {
    entrypoint: from.Entrypoint ?? [],
    cmd: from.Cmd ?? [],
    env: from.Env ?? [],
    workingDir: from.WorkingDir ?? '',
    user: from.User ?? '',
    exposedPorts: ports.filter((port) => port >= 1 && port <= 65_535).sort((a, b) => a - b),
    stopSignal: from.StopSignal || null,
  };
}

function toRegistryError(error: unknown): RegistryError {
  if (error instanceof RegistryError) return error;
  if (error instanceof ForbiddenAddress) {
    return new RegistryError(
      'invalid',
      `its registry may not be reached from here: ${error.message}`,
    );
  }
  if (error instanceof TooLarge)
    return new RegistryError('invalid', 'its manifest or config is too large');
  if (error instanceof z.ZodError)
    return new RegistryError('invalid', 'the registry answered with something unknown');
  if (error instanceof DomainError) throw error;
  const { code, name } = error as NodeJS.ErrnoException;
  return new RegistryError(
    'unreachable',
    name === 'TimeoutError' ? 'no answer in time' : (code ?? name),
  );
}

function explain(
  written: string,
  tenant: string,
  registryHost: string,
  failures: readonly { place: ImageReference; error: RegistryError }[],
): DomainError {
  const last = failures.at(-1);
  const missing = failures.some(({ error }) => error.refusal === 'not-found');
  const ours = failures.find(({ place }) => place.ours)?.place;
  if (ours && missing) {
    const elsewhere = last && !last.place.ours ? `, nor on Docker Hub (${last.error.message})` : '';
    const target = `${registryHost}/${ours.path}${ours.byDigest ? '' : `:${ours.version}`}`;
    return new DomainError(
      'NOT_FOUND',
      `Image ${written} was not found in the registry of this platform under ${tenant}/${elsewhere}. Push it first: docker tag <image> ${target} && docker push ${target}`,
    );
  }
  const where = last?.place.registry ?? 'the registry';
  switch (last?.error.refusal) {
    case 'not-found':
      return new DomainError(
        'NOT_FOUND',
        `Image ${written} was not found at ${where}. Check its name and tag`,
      );
    case 'unauthorised':
      return new DomainError(
        'NOT_FOUND',
        `Image ${written} was not found at ${where}, or it is private there (${last.error.message}). Only public images of other registries can be deployed; push a private one to ${registryHost}/${tenant}/`,
      );
    case 'invalid':
      return invalid(`Image ${written} cannot be deployed: ${last.error.message}`);
    default:
      return unavailable(
        `${where} cannot be reached for image ${written} (${last?.error.message ?? 'no answer'}); try again later`,
      );
  }
}
