import { dnsLabel, invalid } from '@bulkhead/protocol';
import { parse } from '../db/parse.ts';

/**
 * Names that would be mistaken for a part of the platform in a host name, a URL or an image
 * reference, now or when the platform grows.
 */
const reserved = new Set(
  (
    'abuse account accounts admin administrator api app apps assets auth autoconfig autodiscover billing ' +
    'bulkhead cdn console dashboard deploy dns docs edge email ftp git graphql health help host ' +
    'hostmaster imap internal library live localhost login mail metrics mx nats node nodes ns ns1 ns2 ' +
    'operator operators platform pop pop3 postgres postmaster prometheus public registry root route routes secure ' +
    'security session signin signup smtp ssl staging static status support system tenant tenants token tokens ' +
    'user users v1 v2 webmail webmaster wpad www'
  ).split(' '),
);

/** A tenant's slug, checked: INVALID when it is no DNS label or reserved. */
export function checkSlug(slug: string): string {
  parse(dnsLabel, slug, 'slug');
  if (reserved.has(slug) || slug.startsWith('xn--')) {
    throw invalid(`slug: "${slug}" is reserved; choose another`, { field: 'slug' });
  }
  return slug;
}
