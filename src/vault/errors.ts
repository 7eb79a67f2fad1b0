/** Something the vault refuses or cannot do. Messages are ours and hold no secret. */
export abstract class VaultError extends Error {
  constructor(message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = this.constructor.name;
  }
}

/**
 * A sealed value does not open: another key, another place, or changed bytes. Final for this value.
 *
 * It deliberately says no more and has no cause: whoever can try values must not learn how far one came.
 */
export class VaultOpenError extends VaultError {
  constructor() {
    super('The sealed value does not open');
  }
}

/** Why there is no key to work with, in our words. */
export type VaultUnavailableReason =
  'no-tenant-key' | 'root-key-missing' | 'root-key-denied' | 'wrapped-key-refused' | 'provider-failed';

const UNAVAILABLE: Record<VaultUnavailableReason, string> = {
  'no-tenant-key': 'the owner has no key',
  'root-key-missing': 'the key is wrapped by a root key that is not given',
  'root-key-denied': 'the root key is disabled, destroyed or not permitted',
  'wrapped-key-refused': 'the wrapped key is not the one that was stored for its owner',
  'provider-failed': 'the root key provider failed',
};

/** A tenant's key could not be had. Only `provider-failed` may pass by itself; the other reasons need an operator. */
export class VaultUnavailableError extends VaultError {
  readonly reason: VaultUnavailableReason;

  constructor(reason: VaultUnavailableReason, options?: ErrorOptions) {
    super(`The vault is unavailable: ${UNAVAILABLE[reason]}`, options);
    this.reason = reason;
  }
}

/** The given root keys are not those of the database. The message is one sentence for the operator's terminal. */
export class RootKeyMismatchError extends VaultError {}

/** A root key setting or file cannot be used. The message names the position or path, never the value. */
export class RootKeyInvalidError extends VaultError {}
