import { BlockList, isIP } from 'node:net';
import type { IncomingHttpHeaders } from 'node:http';

/** Where a request comes from; undefined where its connection is gone already. */
export type AddressOf = (from: { headers: IncomingHttpHeaders; address: string | undefined }) => string | undefined;

/** The form of IPv4 addresses that IPv6 sockets report. */
const plain = (address: string) => address.replace(/^::ffff:(?=[\d.]+$)/i, '');

const familyOf = (address: string) => (isIP(address) === 6 ? 'ipv6' : 'ipv4');

function createList(networks: readonly string[]): BlockList {
  const list = new BlockList();
  for (const network of networks) {
    const [address = '', bits] = network.split('/');
    if (bits === undefined) list.addAddress(address, familyOf(address));
    else list.addSubnet(address, Number(bits), familyOf(address));
  }
  return list;
}

/**
 * Finds the address of whoever sent a request: that of the connection or, where that is a trusted proxy's, the last one
 * in `X-Forwarded-For` that is none. What stands before it was written by nobody we trust.
 *
 * @param trusted addresses, and networks as `10.0.0.0/8`.
 */
export function createAddressOf(trusted: readonly string[]): AddressOf {
  const list = createList(trusted);
  const isTrusted = (address: string) => isIP(address) !== 0 && list.check(address, familyOf(address));
  return ({ headers, address }) => {
    if (address === undefined) return undefined;
    let found = plain(address);
    if (trusted.length === 0) return found;
    const forwarded = headers['x-forwarded-for'];
    const hops = (Array.isArray(forwarded) ? forwarded.join(',') : (forwarded ?? '')).split(',');
    while (isTrusted(found)) {
      const hop = plain(hops.pop()?.trim() ?? '');
      if (isIP(hop) === 0) break;
      found = hop;
    }
    return found;
  };
}
