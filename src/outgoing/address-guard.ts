import { lookup as resolve, type LookupAddress } from 'node:dns';
import { isIP, type LookupFunction } from 'node:net';
import ipaddr from 'ipaddr.js';

/** The address of a webhook endpoint is none that may be sent to. Its message names no address. */
export class AddressNotAllowedError extends Error {
  constructor() {
    super('The address is private and not allowed by LATCHKEY_WEBHOOK_ALLOW_PRIVATE');
    this.name = 'AddressNotAllowedError';
  }
}

type AddressRange = [ipaddr.IPv4 | ipaddr.IPv6, number];

const parseRange = (cidr: string): AddressRange => ipaddr.parseCIDR(cidr);

/** Public by its number, yet answered by the host of a virtual machine: Azure's platform address. */
const PLATFORM_ADDRESSES: readonly AddressRange[] = [parseRange('168.63.129.16/32')];
/** All that is given out for use on the Internet (RFC 4291 §2.4); the rest is special or translated. */
const GLOBAL_IPV6 = parseRange('2000::/3');

const isWithin = (address: ipaddr.IPv4 | ipaddr.IPv6, [range, bits]: AddressRange): boolean =>
  address.kind() === range.kind() && address.match(range, bits);

/** Addresses that may be connected to: public ones, and those of ranges that the operator allows. */
export interface AddressGuard {
  /** Whether the number may be connected to. A text that is no address may not. */
  permits(address: string): boolean;
  /**
   * Resolves names as `dns.lookup` does, and gives on only what may be connected to: what is connected to is what was
   * looked at, so a name cannot answer one thing to the check and another to the connection.
   *
   * @throws {AddressNotAllowedError} to its callback: nothing is left.
   */
  lookup: LookupFunction;
}

/**
 * @param allowPrivate ranges (CIDR) that are not public and may be connected to all the same.
 * @param resolver instead of the system's.
 */
export function createAddressGuard(
  allowPrivate: readonly string[],
  resolver: (hostname: string, callback: (error: Error | null, found: LookupAddress[]) => void) => void = (
    hostname,
    callback,
  ) => resolve(hostname, { all: true }, callback),
): AddressGuard {
  const allowed = allowPrivate.map(parseRange);

  function permits(text: string): boolean {
    if (isIP(text) === 0) return false;
    // An IPv4 address within an IPv6 one is judged as what it is.
    const address = ipaddr.process(text);
    if (allowed.some((range) => isWithin(address, range))) return true;
    if (PLATFORM_ADDRESSES.some((range) => isWithin(address, range))) return false;
    return address.range() === 'unicast' && (address.kind() === 'ipv4' || isWithin(address, GLOBAL_IPV6));
  }

  const lookup: LookupFunction = (hostname, options, callback) => {
    resolver(hostname, (error, found) => {
      if (error !== null) return callback(error, []);
      const permitted = found.filter(({ address }) => permits(address));
      const [first] = permitted;
      if (first === undefined) return callback(new AddressNotAllowedError(), []);
      return options.all === true ? callback(null, permitted) : callback(null, first.address, first.family);
    });
  };

  return { permits, lookup };
}
