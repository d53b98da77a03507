/** Reads manifests and configs by the OCI distribution API, with the token dance of Docker registries. */
import { createHash } from 'node:crypto';
import { z } from 'zod';
import { get, type Answer } from './https-get.ts';
import type { ImageReference } from './reference.ts';

const manifestTypes = [
  'application/vnd.oci.image.index.v1+json',
  'application/vnd.docker.distribution.manifest.list.v2+json',
  'application/vnd.oci.image.manifest.v1+json',
  'application/vnd.docker.distribution.manifest.v2+json',
];
const maxManifestBytes = 4_194_304;
const maxConfigBytes = 1_048_576;
const maxTokenBytes = 65_536;
const maxRedirects = 5;

/** Why a registry did not give what was asked for. */
export type RegistryRefusal = 'not-found' | 'unauthorised' | 'invalid' | 'unreachable';
export class RegistryError extends Error {
  constructor(
    readonly refusal: RegistryRefusal,
    message: string,
  ) {
    super(message);
  }
}

export interface RegistryClientOptions {
  /** The platform's registry, as scheme and host. */
  ownOrigin: string;
  /** A token to pull a repository from the platform's registry. */
  ownToken: (path: string) => Promise<string>;
  isAllowed?: (address: string) => boolean;
  ca?: string;
}

const tokenAnswer = z.object({ token: z.string().optional(), access_token: z.string().optional() });

/** Reads one repository of one registry; keeps its token between requests. */
export class RepositoryReader {
  #authorization: string | null = null;

  constructor(
    private readonly options: RegistryClientOptions,
    private readonly reference: ImageReference,
    private readonly signal: AbortSignal,
  ) {}

  /** @throws RegistryError when the answer is refused or is not what its digest says. */
  async manifest(version: string): Promise<{ digest: string; json: unknown }> {
    const answer = await this.#get(
      `manifests/${version}`,
      maxManifestBytes,
      manifestTypes.join(', '),
    );
    const digest = digestOf(answer.body);
    if (version.startsWith('sha256:') && digest !== version) {
      throw new RegistryError('invalid', 'the registry answered with a manifest of another digest');
    }
    return { digest, json: parseJson(answer.body) };
  }

  async config(digest: string): Promise<unknown> {
    const answer = await this.#get(`blobs/${digest}`, maxConfigBytes, '*/*');
    if (digestOf(answer.body) !== digest) {
      throw new RegistryError('invalid', 'the registry answered with a config of another digest');
    }
    return parseJson(answer.body);
  }

  async #get(what: string, maxBytes: number, accept: string): Promise<Answer> {
    const { ours, path, registry } = this.reference;
    if (ours) this.#authorization ??= `Bearer ${await this.options.ownToken(path)}`;
    const origin = ours ? this.options.ownOrigin : `https://${apiHost(registry)}`;
    const url = new URL(`${origin}/v2/${path}/${what}`);
    let answer = await this.#follow(url, maxBytes, accept);
    if (answer.status === 401 && !ours && this.#authorization === null) {
      this.#authorization = await this.#askForToken(answer.headers['www-authenticate']);
      if (this.#authorization) answer = await this.#follow(url, maxBytes, accept);
    }
    if (answer.status === 200) return answer;
    if (answer.status === 404) throw new RegistryError('not-found', 'no such image');
    if (answer.status === 401 || answer.status === 403) {
      throw new RegistryError('unauthorised', `the registry answered ${answer.status}`);
    }
    throw new RegistryError('unreachable', `the registry answered ${answer.status}`);
  }

  /** Blobs are often elsewhere. The token is for the registry only and stays behind. */
  async #follow(start: URL, maxBytes: number, accept: string): Promise<Answer> {
    let url = start;
    for (let hop = 0; hop <= maxRedirects; hop += 1) {
      const mayKnow = url.origin === start.origin && this.#authorization !== null;
      const answer = await this.#send(url, maxBytes, {
        accept,
        ...(mayKnow && { authorization: this.#authorization ?? '' }),
      });
      const { location } = answer.headers;
      if (answer.status < 300 || answer.status >= 400 || location === undefined) return answer;
      url = new URL(location, url);
    }
    throw new RegistryError('invalid', 'the registry sends from one address to the next');
  }

  /** https://distribution.github.io/distribution/spec/auth/token/, as nobody in particular. */
  async #askForToken(challenge: string | undefined): Promise<string | null> {
    const [, parameters] = /^bearer\s+(.*)$/i.exec(challenge ?? '') ?? [];
    if (!parameters) return null;
    const said = new Map([...parameters.matchAll(/(\w+)="([^"]*)"/g)].map((m) => [m[1], m[2]]));
    if (!URL.canParse(said.get('realm') ?? '')) return null;
    const url = new URL(said.get('realm') ?? '');
    const service = said.get('service');
    if (service) url.searchParams.set('service', service);
    url.searchParams.set('scope', `repository:${this.reference.path}:pull`);
    const answer = await this.#send(url, maxTokenBytes, { accept: 'application/json' });
    if (answer.status !== 200) return null;
    const { token, access_token } = tokenAnswer.parse(parseJson(answer.body));
    const bearer = token ?? access_token;
    return bearer === undefined ? null : `Bearer ${bearer}`;
  }

  #send(url: URL, maxBytes: number, headers: Record<string, string>): Promise<Answer> {
    const { ownOrigin, isAllowed, ca } = this.options;
    return get(url, {
      headers,
      maxBytes,
      signal: this.signal,
      // Only the platform's own repositories are read over the trusted way: no redirect leads there.
      trustedOrigin: this.reference.ours ? ownOrigin : 'none:',
      ...(isAllowed && { isAllowed }),
      ...(ca !== undefined && { ca }),
    });
  }
}

function apiHost(registry: string): string {
  return registry === 'docker.io' ? 'registry-1.docker.io' : registry;
}

function digestOf(body: Buffer): string {
  return `sha256:${createHash('sha256').update(body).digest('hex')}`;
}

function parseJson(body: Buffer): unknown {
  try {
    return JSON.parse(body.toString('utf8'));
  } catch {
    throw new RegistryError('invalid', 'the registry answered with something that is not JSON');
  }
}
