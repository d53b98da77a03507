/**
 * How hosts become nodes of the fleet and stay so. This replica signs their certificates, by an
 * authority for nodes alone (it cannot make a certificate that a node would take for the API's), and
 * the JWTs of their NATS users, by a signing key of the platform's account. Both keys are made by
 * deploy/ and can be replaced without touching the fleet's own authority, whose key only root has.
 */
import { createHash, X509Certificate } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { conflict, writeJoinToken, type JoinAnswer, type JoinRequest } from '@bulkhead/protocol';
import { issueUserJwt, nodePermissions } from '@bulkhead/protocol/bus-access';
import { checkRequest, signRequest, type Credential } from '@bulkhead/protocol/certificates';
import type { Attendance, Fleet as FleetNews } from '@bulkhead/protocol/relay';
import type { Tenancy } from '@bulkhead/tenancy';
import { z } from 'zod';
import type { FleetSettings, Settings } from '../settings.ts';
import type { Gate } from './gate.ts';

/** Days that a node's certificate is good for; agents renew it when a third of that is left. */
const certificateDays = 9;

const signerFile = z.object({ signer: z.string(), account: z.string() });

export interface FleetOptions {
  readonly settings: Settings;
  readonly tenancy: Tenancy;
  readonly gate: Gate | null;
}

export class Fleet {
  readonly #options: FleetOptions;

  constructor(options: FleetOptions) {
    this.#options = options;
  }

  /** What an operator hands to the host. CONFLICT when no other host could reach this one. */
  async tokenOf(secret: string): Promise<string> {
    const { address, joinPort } = this.#settings();
    const authority = new X509Certificate(await this.#key('fleet-ca.cert.pem'));
    const fingerprint = createHash('sha256').update(authority.raw).digest('hex');
    return writeJoinToken({ address: `${address}:${joinPort}`, fingerprint, secret });
  }

  /** UNAUTHENTICATED for a token that is not good any more. */
  async join(request: JoinRequest): Promise<JoinAnswer> {
    const { address, streamsPort, apiPort } = this.#settings();
    const { settings, tenancy, gate } = this.#options;
    // First: what cannot be signed must not use the token up.
    await checkRequest(request.certificateRequest);
    const node = await tenancy.platform((tx) => tx.joining.join(request));
    const certificate = await this.#certify(request.certificateRequest, node.id);
    await this.#note(node.id, certificate);
    const issuer = signerFile.parse(JSON.parse(await this.#key('nats-signer.json')));
    const natsJwt = await issueUserJwt(issuer, {
      ...{ name: node.id, publicKey: request.natsUser },
      permissions: nodePermissions(node.id),
    });
    await gate?.admit(node.id);
    const local = {
      nats: new URL(settings.nats.url).host,
      registry: settings.registry.host,
      api: `${settings.host}:${apiPort}`,
    };
    const through = (hostAndPort: string) => `${address}:${hostAndPort.split(':').at(-1)}`;
    return {
      ...{ v: 1, ...node, natsJwt, certificate, local },
      authority: await this.#key('fleet-ca.cert.pem'),
      registryHost: settings.registry.host,
      gate: {
        nats: through(local.nats),
        registry: through(local.registry),
        api: through(local.api),
      },
      streams: `${address}:${streamsPort}`,
    };
  }

  /** `endsAt`: of the certificate that the node shows. NOT_FOUND for a node that was removed. */
  async attend(node: string, endsAt: Date, { certificateRequest }: Attendance): Promise<FleetNews> {
    const { tenancy, settings } = this.#options;
    const places = await tenancy.platform(async (tx) => {
      await tx.nodes.noteCertificate(node, endsAt);
      return tx.nodes.places(node);
    });
    const edges = [...(settings.fleet?.edges ?? [])];
    if (!certificateRequest) return { edges, places };
    const certificate = await this.#certify(certificateRequest, node);
    await this.#note(node, certificate);
    return { edges, places, certificate };
  }

  async #certify(request: string, node: string): Promise<string> {
    const authority: Credential = {
      cert: await this.#key('nodes-ca.cert.pem'),
      key: await this.#key('nodes-ca.key.pem'),
    };
    const now = this.#options.tenancy.now();
    return signRequest(authority, request, { kind: 'node', node }, now, certificateDays);
  }

  async #note(node: string, certificate: string): Promise<void> {
    const endsAt = new Date(new X509Certificate(certificate).validTo);
    await this.#options.tenancy.platform((tx) => tx.nodes.noteCertificate(node, endsAt));
  }

  #key(name: string): Promise<string> {
    return readFile(join(this.#options.settings.keyDir, name), 'utf8');
  }

  #settings(): FleetSettings {
    const { fleet } = this.#options.settings;
    if (fleet) return fleet;
    throw conflict(
      'this platform listens on loopback only: run it with BULKHEAD_LISTEN=<address of its host>',
    );
  }
}
