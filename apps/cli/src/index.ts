/** The command line as a library: its program (for documentation) and its exit codes. */
export { createProgram } from './program.ts';
export { exitCodes } from './errors.ts';
