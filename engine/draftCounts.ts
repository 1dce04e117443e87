/** How many proposals there were, and how many became part of an answer: in all, and by their place behind the last token. */

/** Proposals of one place. */
export interface DraftShare {
  readonly proposed: number;
  readonly accepted: number;
}

/** Counts since loading, or of one answer. */
export interface DraftStats extends DraftShare {
  /** Proposed = accepted + rejected. Those behind a wrong one are rejected with it. */
  readonly rejected: number;
  /** Of the first proposal behind the last token, of the second, and so on. */
  readonly byPosition: readonly DraftShare[];
}

/** The counts of a run of steps. */
export class DraftCounts {
  readonly #places: { proposed: number; accepted: number }[] = [];
  #rejected = 0;

  /** A step that tried so many proposals of one sequence, the first of which were accepted. */
  add(proposed: number, accepted: number): void {
    for (let i = 0; i < proposed; i++) {
      const place = this.#places[i] ?? { proposed: 0, accepted: 0 };
      this.#places[i] = place;
      place.proposed++;
      if (i < accepted) place.accepted++;
      else this.#rejected++;
    }
  }

  get stats(): DraftStats {
    const byPosition = this.#places.map((place) => ({ ...place }));
    const sum = (field: keyof DraftShare) => byPosition.reduce((total, place) => total + place[field], 0);
    return { proposed: sum("proposed"), accepted: sum("accepted"), rejected: this.#rejected, byPosition };
  }
}
