/* A failing sequence, made smaller for as long as it still fails. */
#ifndef DOORBUSTER_TEST_SHRINK_H
#define DOORBUSTER_TEST_SHRINK_H

#include "trial.h"

/* Runs it again and again, from an empty Redis and store each time, at most `runs_max` times. At the end *sequence is the smallest that was found,
 * and trial->failure what it fails with. */
void shrink(struct trial *trial, struct world *world, struct sequence *sequence, enum model_fault fault,
            size_t runs_max);

#endif
