import { createPrivateKey, X509Certificate } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import { basename, join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import type { Logger } from 'pino';
import { edgeFiles } from '../settings.ts';
import { writeAtomically } from '../store.ts';
import type { HaproxyMaster, HaproxyProcess } from './master.ts';

/**
 * The operator's certificates. He puts them where he likes and may break them at any moment; HAProxy
 * starts from copies beside its configuration, of which each was good. A running HAProxy is told what
 * is new over its runtime API, so no connection notices; the name that a client asks for chooses.
 */
export interface Certificate {
  /** The first certificate, its chain and key, without what else was in the file. */
  readonly pem: string;
  /** SHA-1, as HAProxy shows it. */
  readonly fingerprint: string;
  readonly expires: Date;
}

/** File names to certificates, in order. */
export type Certificates = ReadonlyMap<string, Certificate>;

/** Its first one is used for clients that ask for no name, or for one that nobody has. */
const defaultName = '.default';
const lookEveryMs = 5000;
const block = /-----BEGIN ([A-Z0-9 ]+)-----[^-]+-----END \1-----/g;

/** What HAProxy takes from a PEM file; a string says what is wrong with it. */
export function parseCertificate(text: string): Certificate | string {
  const blocks = [...text.matchAll(block)].map(([whole, kind = '']) => ({ whole, kind }));
  const key = blocks.find(({ kind }) => kind.endsWith('PRIVATE KEY'));
  const first = blocks.find(({ kind }) => kind === 'CERTIFICATE');
  if (!first) return 'holds no certificate';
  if (!key || key.kind.startsWith('ENCRYPTED'))
    return 'holds no private key without a password; put certificate, chain and key into one file';
  try {
    const certificate = new X509Certificate(first.whole);
    if (!certificate.checkPrivateKey(createPrivateKey(key.whole)))
      return 'has a key that is not of its first certificate; put the chain after the certificate';
    // An empty line would end it on HAProxy's command line.
    const pem = blocks.map(({ whole }) => whole.replaceAll(/\s*\n\s*/g, '\n')).join('\n');
    const fingerprint = certificate.fingerprint.replaceAll(':', '');
    return { pem: `${pem}\n`, fingerprint, expires: certificate.validToDate };
  } catch (error) {
    return `cannot be read: ${(error as Error).message}`;
  }
}

/**
 * What is there now: a file, or every file of a directory. Of one that is no good, and if there is no
 * good one at all, the copies are used.
 */
export function readCertificates(
  source: string,
  dir: string,
): { certificates: Certificates; problems: string[] } {
  const copies = readDirectory(edgeFiles(dir).certificates);
  const certificates = new Map<string, Certificate>();
  const problems: string[] = [];
  try {
    const isDirectory = statSync(source).isDirectory();
    const names = isDirectory ? readdirSync(source).sort() : [basename(source)];
    for (const name of names.filter((each) => !each.startsWith('.'))) {
      const path = isDirectory ? join(source, name) : source;
      const read = /^[A-Za-z0-9._-]+$/.test(name)
        ? parseCertificate(readFileSync(path, 'utf8'))
        : 'needs a name of letters, digits and . _ - only';
      if (typeof read !== 'string') certificates.set(name, read);
      else problems.push(`${path} ${read}`);
      const copy = copies.get(name);
      if (typeof read === 'string' && copy) certificates.set(name, copy);
    }
  } catch (error) {
    problems.push((error as Error).message);
    return { certificates: copies, problems };
  }
  if (certificates.size > 0) return { certificates, problems };
  return { certificates: copies, problems: [...problems, `${source} holds no certificate`] };
}

function readDirectory(dir: string): Map<string, Certificate> {
  const found = new Map<string, Certificate>();
  for (const name of existsSync(dir) ? readdirSync(dir).sort() : []) {
    const read = parseCertificate(readFileSync(join(dir, name), 'utf8'));
    if (typeof read !== 'string' && name !== defaultName) found.set(name, read);
  }
  return found;
}

/** With the one for clients that ask for no name. */
function withDefault(certificates: Certificates): Certificates {
  const [first] = certificates.values();
  return first ? new Map([[defaultName, first], ...certificates]) : certificates;
}

/** The copies, and the list that HAProxy starts with. */
function writeCertificates(dir: string, certificates: Certificates): void {
  const files = edgeFiles(dir);
  mkdirSync(files.certificates, { recursive: true, mode: 0o700 });
  const all = withDefault(certificates);
  for (const [name, { pem }] of all) {
    const path = join(files.certificates, name);
    if (existsSync(path) && readFileSync(path, 'utf8') === pem) continue;
    writeAtomically(path, pem, { durable: false });
  }
  const list = [...all.keys()].map((name) => `${join(files.certificates, name)}\n`).join('');
  writeAtomically(files.certificateList, list, { durable: false });
  for (const name of readdirSync(files.certificates))
    if (!all.has(name)) rmSync(join(files.certificates, name));
}

/**
 * For the first HAProxy, which nobody can ask what it takes; gives what is wrong with the rest. Later
 * ones start with what a running one took. An Error without any certificate.
 */
export function ensureCertificates(source: string, dir: string): string[] {
  if (readDirectory(edgeFiles(dir).certificates).size > 0) return [];
  const { certificates, problems } = readCertificates(source, dir);
  if (certificates.size === 0)
    throw new Error(
      `The edge has no certificate for HTTPS, see EDGE_TLS_CERTIFICATES:\n  ${problems.join('\n  ')}`,
    );
  writeCertificates(dir, certificates);
  return problems;
}

/** Looks every few seconds whether there are others, and tells HAProxy. */
export class CertificateWatch {
  readonly #master: HaproxyMaster;
  readonly #source: string;
  readonly #dir: string;
  readonly #log: Logger;
  readonly #stop = new AbortController();
  #running: Promise<void> = Promise.resolve();
  /** What this worker has for sure. */
  #told: { pid: number; pems: Map<string, string> } = { pid: 0, pems: new Map() };
  #current: Certificates = new Map();
  #problems = '';

  constructor(master: HaproxyMaster, source: string, dir: string, log: Logger) {
    this.#master = master;
    this.#source = source;
    this.#dir = dir;
    this.#log = log;
  }

  /** What HAProxy has, by file name. */
  get current(): Certificates {
    return this.#current;
  }

  start(): void {
    this.#running = this.#run();
  }

  async stop(): Promise<void> {
    this.#stop.abort();
    await this.#running;
  }

  async #run(): Promise<void> {
    while (!this.#stop.signal.aborted) {
      // HAProxy may be away; the next look is soon.
      await this.#look().catch((error: unknown) =>
        this.#log.debug({ err: error }, 'cannot compare certificates with what HAProxy has'),
      );
      await delay(lookEveryMs, undefined, { signal: this.#stop.signal }).catch(() => undefined);
    }
  }

  async #look(): Promise<void> {
    const { certificates, problems } = readCertificates(this.#source, this.#dir);
    const worker = (await this.#master.workers()).find(({ role }) => role === 'current');
    if (!worker) return;
    const refused = await this.#tell(worker, certificates);
    this.#report([...problems, ...refused.values()]);
    // What HAProxy refused it would not start with either.
    const copies = readDirectory(edgeFiles(this.#dir).certificates);
    const good = new Map(
      [...certificates].flatMap(([name, certificate]) => {
        const kept = refused.has(name) ? copies.get(name) : certificate;
        return kept ? [[name, kept] as const] : [];
      }),
    );
    if (good.size > 0) writeCertificates(this.#dir, good);
    this.#current = good;
  }

  /** Said once, until something else is wrong. */
  #report(problems: readonly string[]): void {
    const text = problems.join('\n');
    if (text !== '' && text !== this.#problems)
      this.#log.error({ problems }, 'some certificates are not used; their last good ones are');
    if (text === '' && this.#problems !== '') this.#log.info('every certificate is used again');
    this.#problems = text;
  }

  /** Makes a worker have these; gives those that it did not take, and why. */
  async #tell(worker: HaproxyProcess, certificates: Certificates): Promise<Map<string, string>> {
    const files = edgeFiles(this.#dir);
    const run = (command: string) => this.#master.run(worker, command);
    const listed = (await run(`show ssl crt-list ${files.certificateList}`)).split('\n');
    // Another's configuration, or one of ours without HTTPS.
    if (!listed[0]?.startsWith('# ')) throw new Error(`HAProxy has no such list: ${listed[0]}`);
    if (this.#told.pid !== worker.pid) this.#told = { pid: worker.pid, pems: new Map() };
    const { pems } = this.#told;
    const refused = new Map<string, string>();
    const wanted = withDefault(certificates);
    for (const [name, { pem, fingerprint }] of wanted) {
      const path = join(files.certificates, name);
      const isListed = listed.includes(path);
      if (isListed && !pems.has(path)) {
        const shown = await run(`show ssl cert ${path}`);
        if (shown.includes(`SHA1 FingerPrint: ${fingerprint}`)) pems.set(path, pem);
      }
      if (isListed && pems.get(path) === pem) continue;
      const problem = await exchange(run, path, pem, isListed ? null : files.certificateList);
      if (problem === null) pems.set(path, pem);
      else refused.set(name, `HAProxy refuses ${name}: ${problem}`);
      if (problem === null) this.#log.info({ certificate: name }, 'HAProxy has a new certificate');
    }
    for (const path of listed.filter((line) => line.startsWith(`${files.certificates}/`))) {
      if (wanted.has(basename(path))) continue;
      await run(`del ssl crt-list ${files.certificateList} ${path}`);
      await run(`del ssl cert ${path}`);
      pems.delete(path);
      this.#log.info({ certificate: basename(path) }, 'HAProxy has dropped a certificate');
    }
    return refused;
  }
}

/** Puts one in the place of another, or into the list; null, or why not. */
async function exchange(
  run: (command: string) => Promise<string>,
  path: string,
  pem: string,
  list: string | null,
): Promise<string | null> {
  // One that is there but not in the list is left from an attempt that broke off.
  if (list !== null) await run(`new ssl cert ${path}`);
  const set = await run(`set ssl cert ${path} <<\n${pem}`);
  const committed = await run(`commit ssl cert ${path}`);
  if (!committed.includes('Success!')) {
    await run(`abort ssl cert ${path}`);
    if (list !== null) await run(`del ssl cert ${path}`);
    return set.includes('Transaction') ? committed : set;
  }
  if (list === null) return null;
  const added = await run(`add ssl crt-list ${list} ${path}`);
  return added.includes('Success!') ? null : added;
}
