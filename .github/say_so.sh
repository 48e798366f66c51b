#!/usr/bin/env bash
# Opens an issue for a run that has failed, or, where one of that title is open, adds to it: say_so.sh TITLE TEXT
set -euo pipefail
title=$1
text="$2: $GITHUB_SERVER_URL/$GITHUB_REPOSITORY/actions/runs/$GITHUB_RUN_ID"
open=$(gh issue list --repo "$GITHUB_REPOSITORY" --state open --search "in:title \"$title\"" --json number --jq '.[0].number // empty')
if [ -n "$open" ]; then
    gh issue comment "$open" --repo "$GITHUB_REPOSITORY" --body "$text"
else
    gh issue create --repo "$GITHUB_REPOSITORY" --title "$title" --body "$text"
fi
