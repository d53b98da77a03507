/** The key of the Tenancy, the only door to the database, in Nest's container. */
export const TENANCY = Symbol('TENANCY');
