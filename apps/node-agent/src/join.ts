/**
 * `bulkhead-agent join TOKEN`: makes this host a node of the fleet. Every private key is made here and
 * stays here; what goes out is public halves, the hash of the registry secret, and the token, and that
 * only to whom the token's fingerprint names. Safe to run again: the keys are kept, and the token is
 * good for them until it ends, so an answer that was lost is asked for once more.
 */
import { createHash, randomBytes } from 'node:crypto';
import { mkdir, readFile } from 'node:fs/promises';
import { request as httpsRequest } from 'node:https';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { connect, type PeerCertificate } from 'node:tls';
import {
  apiServerName,
  joinAnswer,
  joinPath,
  makeSealingKeyPair,
  readJoinToken,
  type JoinAnswer,
  type JoinRequest,
  type JoinToken,
} from '@bulkhead/protocol';
import { makeKey, makeRequest } from '@bulkhead/protocol/certificates';
import { createUser, fmtCreds, fromSeed } from '@nats-io/jwt';
import { writeAtomically } from './files.ts';
import { membershipFile } from './membership.ts';

const deadlineMs = 15_000;

const write = (file: string, content: string) => writeAtomically(file, content, { durable: true });

export interface JoinOptions {
  readonly nodeDir: string;
  readonly token: string;
  /** What the host calls itself, when the token gives no name; its host name when left out. */
  readonly name?: string | undefined;
  /** By which the other hosts reach it; the one that it reaches the gate from when left out. */
  readonly address?: string | undefined;
}

/** Throws an Error for people, which says what to do. */
export async function joinFleet(options: JoinOptions): Promise<JoinAnswer> {
  const token = readJoinToken(options.token);
  if (token === null)
    throw new Error('This is no join token. An operator makes one: bulkhead nodes token create');
  const known = await readText(join(options.nodeDir, 'node.json'));
  if (known !== null)
    throw new Error(
      `This host is a node already (${options.nodeDir}/node.json). To join another fleet, take it down and delete that directory.`,
    );
  const { authority, ownAddress } = await findAuthority(token);
  const keys = await ensureKeys(options.nodeDir);
  const answer = await post(token, authority, {
    v: 1,
    secret: token.secret,
    name: options.name ?? nameOfHost(),
    address: options.address ?? ownAddress,
    sealingKey: keys.sealingKey,
    natsUser: keys.natsUser,
    registryHash: createHash('sha256').update(keys.registrySecret).digest('hex'),
    certificateRequest: await makeRequest(keys.tlsKey),
  });
  await writeIdentity(options.nodeDir, keys, answer);
  return answer;
}

/** A DNS label out of the host's name. */
const nameOfHost = (): string =>
  hostname()
    .toLowerCase()
    .replaceAll(/[^a-z0-9-]/g, '-')
    .replace(/^[^a-z]+/, '')
    .slice(0, 40)
    .replace(/-+$/, '') || 'node';

interface Keys {
  tlsKey: string;
  natsSeed: string;
  natsUser: string;
  sealingKey: JoinRequest['sealingKey'];
  registrySecret: string;
}

async function ensureKeys(nodeDir: string): Promise<Keys> {
  // Mapped ids of containers walk through it to their root filesystems.
  await mkdir(nodeDir, { recursive: true, mode: 0o711 });
  await mkdir(join(nodeDir, 'tls'), { recursive: true, mode: 0o700 });
  const once = async (name: string, make: () => string | Promise<string>): Promise<string> => {
    const file = join(nodeDir, name);
    const there = await readText(file);
    if (there !== null) return there;
    const made = await make();
    await write(file, made);
    return made;
  };
  const natsSeed = await once('nats.seed', () => text(createUser().getSeed()));
  const sealing = JSON.parse(
    await once('sealing.jwk.json', async () =>
      JSON.stringify((await makeSealingKeyPair()).privateKey),
    ),
  ) as JoinRequest['sealingKey'];
  return {
    tlsKey: await once('tls/key.pem', makeKey),
    natsSeed,
    natsUser: fromSeed(bytes(natsSeed)).getPublicKey(),
    sealingKey: { kty: sealing.kty, crv: sealing.crv, x: sealing.x },
    registrySecret: await once('registry.secret', () => randomBytes(32).toString('base64url')),
  };
}

/** `node.json` last: with it, the agent takes the rest for complete. */
async function writeIdentity(nodeDir: string, keys: Keys, answer: JoinAnswer): Promise<void> {
  const file = (name: string) => join(nodeDir, name);
  await write(file('tls/ca.pem'), answer.authority);
  await write(file('tls/cert.pem'), answer.certificate);
  await write(file('nats.creds'), text(fmtCreds(answer.natsJwt, fromSeed(bytes(keys.natsSeed)))));
  const auth = Buffer.from(`${answer.id}:${keys.registrySecret}`).toString('base64');
  const auths = { auths: { [answer.registryHost]: { auth } } };
  await write(file('registry-auth.json'), JSON.stringify(auths));
  const { network, registryHost, gate, local, streams } = answer;
  const membership = { network, registryHost, gate, local, streams };
  await write(membershipFile(nodeDir), JSON.stringify(membership, null, 2));
  await write(file('node.json'), JSON.stringify({ id: answer.id, name: answer.name }));
}

/**
 * The certificate of the fleet's authority, by its fingerprint in the token, out of what the other
 * side shows; nothing is said to it yet.
 */
function findAuthority(token: JoinToken): Promise<{ authority: string; ownAddress: string }> {
  const { hostname: host, port } = new URL(`tcp://${token.address}`);
  return new Promise((resolve, reject) => {
    const options = { host, port: Number(port), servername: apiServerName };
    // Whom it is has to be found out first; the request itself is sent to nobody who is not verified.
    const socket = connect({ ...options, rejectUnauthorized: false }, () => {
      for (const certificate of chainOf(socket.getPeerCertificate(true))) {
        const fingerprint = createHash('sha256').update(certificate.raw).digest('hex');
        if (fingerprint !== token.fingerprint) continue;
        resolve({ authority: pemOf(certificate.raw), ownAddress: socket.localAddress ?? '' });
        return socket.destroy();
      }
      socket.destroy(
        new Error(
          `Whoever answers at ${token.address} is not of the fleet that this token is for. Nothing was sent.`,
        ),
      );
    });
    socket.setTimeout(deadlineMs, () => socket.destroy(new Error('no answer in time')));
    socket.once('error', (error) => reject(unreachable(token, error)));
  });
}

function chainOf(first: PeerCertificate): PeerCertificate[] {
  const chain: PeerCertificate[] = [];
  let next = first as PeerCertificate & { issuerCertificate?: PeerCertificate };
  while (next?.raw && !chain.includes(next)) {
    chain.push(next);
    next = next.issuerCertificate as typeof next;
  }
  return chain;
}

const pemOf = (der: Buffer): string =>
  `-----BEGIN CERTIFICATE-----\n${der.toString('base64').replaceAll(/(.{64})(?=.)/g, '$1\n')}\n-----END CERTIFICATE-----\n`;

function post(token: JoinToken, ca: string, body: JoinRequest): Promise<JoinAnswer> {
  const { hostname: host, port } = new URL(`tcp://${token.address}`);
  return new Promise((resolve, reject) => {
    const call = httpsRequest(
      {
        ...{ host, port, path: joinPath, method: 'POST', ca, servername: apiServerName },
        headers: { 'content-type': 'application/json' },
        timeout: deadlineMs,
      },
      (response) => {
        let answer = '';
        response.setEncoding('utf8').on('data', (part: string) => (answer += part));
        response.once('error', reject).once('end', () => {
          if (response.statusCode !== 200) return reject(refusal(response.statusCode ?? 0, answer));
          const parsed = joinAnswer.safeParse(parseJson(answer));
          if (parsed.success) resolve(parsed.data);
          else
            reject(new Error('The answer is none that this version knows; use the same version.'));
        });
      },
    );
    call.once('timeout', () => call.destroy(new Error('no answer in time')));
    call.once('error', (error) => reject(unreachable(token, error)));
    call.end(JSON.stringify(body));
  });
}

const unreachable = (token: JoinToken, error: Error): Error =>
  error.message.startsWith('Whoever answers')
    ? error
    : new Error(
        `${token.address} cannot be reached from here (${error.message}). The token is still good; try again.`,
        { cause: error },
      );

function refusal(status: number, answer: string): Error {
  const said = (parseJson(answer) as { errors?: { message?: string }[] } | null)?.errors?.[0]
    ?.message;
  return new Error(`The fleet refused (${status}): ${said ?? 'it gave no reason'}`);
}

function parseJson(answer: string): unknown {
  try {
    return JSON.parse(answer);
  } catch {
    return null;
  }
}

const text = (data: Uint8Array): string => new TextDecoder().decode(data);
const bytes = (data: string): Uint8Array => new TextEncoder().encode(data);

async function readText(file: string): Promise<string | null> {
  return readFile(file, 'utf8').catch((error: unknown) => {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null;
    throw error;
  });
}
