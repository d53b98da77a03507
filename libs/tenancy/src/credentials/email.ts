import { z } from 'zod';
import { parse } from '../db/parse.ts';

const email = z
  .string()
  .trim()
  .toLowerCase()
  .max(254, 'at most 254 characters')
  .pipe(z.email('this is no email address'));

/** Lower case, without blanks around; INVALID when it is no address. */
export function normaliseEmail(input: string): string {
  return parse(email, input, 'email');
}
