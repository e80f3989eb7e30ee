/**
 * Branded identifiers. Every object of the cluster is named by 25 characters of base 36, as Docker's
 * swarm objects are; the brand keeps a service's id from being passed where a node's is meant.
 */
import type { Random } from './ports.ts';

declare const brand: unique symbol;

/** A string that names one object of kind K. */
export type Id<K extends string> = string & { readonly [brand]: K };

export type ClusterId = Id<'cluster'>;
export type NodeId = Id<'node'>;
export type ServiceId = Id<'service'>;
export type RevisionId = Id<'revision'>;
export type TaskId = Id<'task'>;
export type StackId = Id<'stack'>;
export type NetworkId = Id<'network'>;
export type SecretId = Id<'secret'>;
export type ConfigId = Id<'config'>;

/** Makes new identifiers: what deciding code is handed instead of chance. */
export type NewId = <I extends Id<string>>() => I;

const idLength = 25;
const randomBytesPerId = 16;

/**
 * A new identifier: 128 random bits as 25 base-36 digits, padded on the left with zeros, which is the
 * form of SwarmKit's identifiers.
 */
export function newId<I extends Id<string>>(random: Random): I {
  let value = 0n;
  for (const byte of random.bytes(randomBytesPerId)) value = (value << 8n) | BigInt(byte);
  return value.toString(36).padStart(idLength, '0').slice(-idLength) as I;
}

/** Whether `text` has the form of an identifier (not whether an object of that id exists). */
export function isId(text: string): boolean {
  return /^[0-9a-z]{25}$/.test(text);
}

/** Declares that `text`, read from outside, names an object of kind K. */
export function asId<I extends Id<string>>(text: string): I {
  return text as I;
}
