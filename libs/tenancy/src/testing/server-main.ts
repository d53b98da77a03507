import { spawn } from 'node:child_process';
import { rm } from 'node:fs/promises';
import { argv } from 'node:process';

/**
 * Runs one throw-away PostgreSQL for a test run and ends with it: the tests are several processes,
 * so none of them can own the server. Arguments: pid of the run, folder to delete at the end, uid,
 * gid, then the server's command line.
 */
const [owner, folder, uid, gid, program, ...args] = argv.slice(2);
if (owner === undefined || folder === undefined || program === undefined) {
  throw new Error('arguments: owner pid, folder, uid, gid, program, its arguments');
}

const server = spawn(program, args, {
  uid: Number(uid),
  gid: Number(gid),
  cwd: '/',
  stdio: 'ignore',
  env: { LC_ALL: 'C.UTF-8' },
});

// SIGINT is PostgreSQL's fast shutdown: open connections are cut.
const stop = () => server.kill('SIGINT');
process.on('SIGTERM', stop);
process.on('SIGINT', stop);

const watch = setInterval(() => {
  try {
    process.kill(Number(owner), 0);
  } catch {
    stop();
  }
}, 500);

server.on('exit', () => {
  clearInterval(watch);
  void rm(folder, { recursive: true, force: true });
});
