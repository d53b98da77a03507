import { invalid } from '@bulkhead/protocol';
import type { z } from 'zod';

/** Reads input by its schema; INVALID names the field and says what is wrong with it. */
export function parse<T extends z.ZodType>(schema: T, value: unknown, field: string): z.output<T> {
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  const issue = result.error.issues[0];
  const path = [field, ...(issue?.path ?? [])].join('.');
  throw invalid(`${path}: ${issue?.message ?? 'not valid'}`, { field: path });
}
