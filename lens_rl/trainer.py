"""The RL loop of Lens (arXiv 2605.21573, section 4): DiffusionNFT with a rubric judge.

One step: draw prompt groups, roll out with the old policy, judge while rolling out, reward,
optimality, loss, optimiser step, refresh old and ema, log, evaluate, save. What each stage does is
in the module that is named after it; what may stop the loop is in `guards.py`.
"""

from lens_rl import nft
from lens_rl.stages import Run


def train(run: Run) -> str:
    """Train from the run's last checkpoint to its end. Returns why it ended."""
    recipe, policy = run.recipe, run.policy
    run.start()

    while not (ended := run.ended()):
        step = run.step + 1
        clock = run.clock(step)

        with clock.phase("rollout"), policy.role("old"):
            groups = run.prompts.draw(step)
            made = [(order, sample, run.ask(order, sample)) for order, sample in run.roll_out(groups, step)]

        with clock.phase("judge"):
            judged = run.collect(made)

        reward_PG = run.reward(judged)
        advantage_PG = nft.advantage(reward_PG, clip=recipe.nft.clip, std_over=recipe.nft.std_over)
        optimality_PG = nft.optimality(advantage_PG, clip=recipe.nft.clip)

        with clock.phase("train"):
            for lesson in run.lessons(judged, reward_PG, optimality_PG, step):
                run.backward(run.losses(lesson))
            run.optimizer_step(step)
            policy.blend("old", nft.old_decay(recipe.nft.old_schedule, step))
            policy.blend("ema", nft.ema_decay(step, recipe.policy.ema_decay))

        with clock.phase("evaluate"):
            run.validate(step)

        run.log(step, clock)
        run.save(step)

    return ended
